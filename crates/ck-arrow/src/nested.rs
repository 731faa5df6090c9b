//! Rebuilding nested arrays with their children replaced.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, Int64Type, RunEndIndexType};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, GenericListArray, GenericListViewArray, MapArray,
    OffsetSizeTrait, PrimitiveArray, RunArray, StructArray, UnionArray, make_array,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{ArrowError, DataType, FieldRef};

use crate::measure::used_range;

/// Whether `found` holds for the type or for any type inside it, dictionary values included.
pub(crate) fn any_type(data_type: &DataType, found: &impl Fn(&DataType) -> bool) -> bool {
    let inner = |field: &FieldRef| any_type(field.data_type(), found);
    found(data_type)
        || match data_type {
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::FixedSizeList(field, _)
            | DataType::Map(field, _) => inner(field),
            DataType::Struct(fields) => fields.iter().any(inner),
            DataType::Union(fields, _) => fields.iter().any(|(_, field)| inner(field)),
            DataType::RunEndEncoded(_, values) => inner(values),
            DataType::Dictionary(_, values) => any_type(values, found),
            _ => false,
        }
}

/// What becomes of the validity, offsets and types that a nested array has besides its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// They stay where they are.
    Shared,
    /// They move to memory of their own, without what a slice left behind.
    Copied,
}

impl Own {
    pub(crate) fn nulls(self, nulls: Option<&NullBuffer>) -> Option<NullBuffer> {
        match self {
            Self::Shared => nulls.cloned(),
            Self::Copied => nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| {
                BooleanBuffer::collect_bool(nulls.len(), |row| nulls.is_valid(row)).into()
            }),
        }
    }

    pub(crate) fn values<T: ArrowNativeType>(self, values: &ScalarBuffer<T>) -> ScalarBuffer<T> {
        match self {
            Self::Shared => values.clone(),
            Self::Copied => ScalarBuffer::from_iter(values.iter().copied()),
        }
    }
}

/// The same values in an array whose children went through `change`.
///
/// Children are first cut to the rows that the parent really uses, so that `change` never works on
/// what a slice left behind. Arrays without children come back as they are; dictionaries too, since
/// their values are not rows.
pub(crate) fn map_children(
    array: &ArrayRef,
    own: Own,
    change: &mut dyn FnMut(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let mut children = Vec::with_capacity(fields.len());
            for child in parent.columns() {
                children.push(change(child)?);
            }
            Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                children,
                own.nulls(parent.nulls()),
                parent.len(),
            )?)
        }
        DataType::List(field) => list::<i32>(array, field, own, change)?,
        DataType::LargeList(field) => list::<i64>(array, field, own, change)?,
        DataType::ListView(field) => list_view::<i32>(array, field, own, change)?,
        DataType::LargeListView(field) => list_view::<i64>(array, field, own, change)?,
        DataType::Map(field, sorted) => {
            let parent = array.as_map();
            let (offsets, first, len) = rebased(parent.offsets(), own);
            let entries: ArrayRef = Arc::new(parent.entries().slice(first, len));
            let entries = change(&entries)?.as_struct().clone();
            Arc::new(MapArray::try_new(
                field.clone(),
                offsets,
                entries,
                own.nulls(parent.nulls()),
                *sorted,
            )?)
        }
        DataType::FixedSizeList(field, size) => {
            let parent = array.as_fixed_size_list();
            let values = change(parent.values())?;
            let nulls = own.nulls(parent.nulls());
            Arc::new(FixedSizeListArray::try_new_with_length(
                field.clone(),
                *size,
                values,
                nulls,
                parent.len(),
            )?)
        }
        DataType::Union(..) => union(array, own, change)?,
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => runs::<Int16Type>(array, change)?,
            DataType::Int32 => runs::<Int32Type>(array, change)?,
            _ => runs::<Int64Type>(array, change)?,
        },
        _ => Arc::clone(array),
    })
}

type Change<'a> = &'a mut dyn FnMut(&ArrayRef) -> Result<ArrayRef, ArrowError>;

/// Offsets that start at zero, and the range of the child they speak of.
fn rebased<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    own: Own,
) -> (OffsetBuffer<O>, usize, usize) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let len = (last - first).as_usize();
    if first.as_usize() == 0 && own == Own::Shared {
        return (offsets.clone(), 0, len);
    }
    let moved: ScalarBuffer<O> = offsets.iter().map(|offset| *offset - first).collect();
    (OffsetBuffer::new(moved), first.as_usize(), len)
}

fn list<O: OffsetSizeTrait>(
    array: &ArrayRef,
    field: &FieldRef,
    own: Own,
    change: Change<'_>,
) -> Result<ArrayRef, ArrowError> {
    let parent: &GenericListArray<O> = array.as_list();
    let (offsets, first, len) = rebased(parent.offsets(), own);
    let values = change(&parent.values().slice(first, len))?;
    let nulls = own.nulls(parent.nulls());
    Ok(Arc::new(GenericListArray::try_new(
        field.clone(),
        offsets,
        values,
        nulls,
    )?))
}

fn list_view<O: OffsetSizeTrait>(
    array: &ArrayRef,
    field: &FieldRef,
    own: Own,
    change: Change<'_>,
) -> Result<ArrayRef, ArrowError> {
    let parent: &GenericListViewArray<O> = array.as_list_view();
    let as_i64 = |value: O| i64::try_from(value.as_usize()).unwrap_or(i64::MAX);
    let items = parent.offsets().iter().zip(parent.sizes().iter());
    let (first, last) = used_range(items.map(|(offset, size)| (as_i64(*offset), as_i64(*size))));
    let base = O::usize_as(first);
    // An empty list may point anywhere; it points to the start of what is left.
    let offsets = parent.offsets().iter().zip(parent.sizes().iter());
    let offsets: ScalarBuffer<O> = offsets
        .map(|(offset, size)| {
            if size.as_usize() == 0 {
                O::usize_as(0)
            } else {
                *offset - base
            }
        })
        .collect();
    let values = change(&parent.values().slice(first, last - first))?;
    let nulls = own.nulls(parent.nulls());
    let sizes = own.values(parent.sizes());
    Ok(Arc::new(GenericListViewArray::try_new(
        field.clone(),
        offsets,
        sizes,
        values,
        nulls,
    )?))
}

fn union(array: &ArrayRef, own: Own, change: Change<'_>) -> Result<ArrayRef, ArrowError> {
    let DataType::Union(fields, _) = array.data_type() else {
        return Ok(Arc::clone(array));
    };
    let parent = array.as_union();
    let Some(offsets) = parent.offsets() else {
        let mut children = Vec::with_capacity(fields.len());
        for (id, _) in fields.iter() {
            children.push(change(parent.child(id))?);
        }
        let types = own.values(parent.type_ids());
        return Ok(Arc::new(UnionArray::try_new(
            fields.clone(),
            types,
            None,
            children,
        )?));
    };
    let mut moved: Vec<i32> = offsets.to_vec();
    let mut children = Vec::with_capacity(fields.len());
    for (id, _) in fields.iter() {
        let mine = || {
            parent
                .type_ids()
                .iter()
                .zip(offsets.iter())
                .filter(move |(t, _)| **t == id)
        };
        let (first, last) = used_range(mine().map(|(_, offset)| (i64::from(*offset), 1)));
        let base = i32::try_from(first).unwrap_or(0);
        for (offset, kind) in moved.iter_mut().zip(parent.type_ids().iter()) {
            *offset -= if *kind == id { base } else { 0 };
        }
        children.push(change(&parent.child(id).slice(first, last - first))?);
    }
    let types = own.values(parent.type_ids());
    Ok(Arc::new(UnionArray::try_new(
        fields.clone(),
        types,
        Some(moved.into()),
        children,
    )?))
}

fn runs<R: RunEndIndexType>(array: &ArrayRef, change: Change<'_>) -> Result<ArrayRef, ArrowError> {
    let parent: &RunArray<R> = array.as_run();
    let (first, count) = if parent.is_empty() {
        (0, 0)
    } else {
        let first = parent.get_start_physical_index();
        (first, parent.get_end_physical_index() - first + 1)
    };
    let offset = parent.offset();
    let ends = parent.run_ends().values()[first..first + count].iter();
    // The last run may reach beyond the slice.
    let ends = ends.map(|end| R::Native::usize_as((end.as_usize() - offset).min(parent.len())));
    let ends = PrimitiveArray::<R>::from_iter_values(ends);
    let values = change(&parent.values().slice(first, count))?;
    let data = ArrayDataBuilder::new(array.data_type().clone())
        .len(parent.len())
        .add_child_data(ends.into_data())
        .add_child_data(values.into_data())
        .build()?;
    Ok(make_array(data))
}
