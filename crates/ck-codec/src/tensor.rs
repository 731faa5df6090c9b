use std::fmt;

use arrow_array::{ArrowPrimitiveType, PrimitiveArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::DataType;
use bytes::Bytes;
use ck_core::{Error, Result};

use crate::error::misuse;

/// A dense array of numbers with any number of dimensions. Clones share the numbers.
///
/// The type is any primitive type of Arrow, with `Float16` and without `Boolean` (whose values are bits).
///
/// # Examples
///
/// ```
/// use arrow_array::types::Int32Type;
/// use ck_codec::{Order, Tensor};
///
/// let tensor = Tensor::from_values::<Int32Type>(vec![1, 2, 3, 4, 5, 6], [2, 3], Order::RowMajor)?;
/// let values = tensor.values::<Int32Type>()?;
/// assert_eq!(tensor.position(&[1, 0]).map(|at| values[at]), Some(4));
/// assert_eq!(tensor.strides(), [12, 4]);
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Tensor {
    data_type: DataType,
    shape: Vec<usize>,
    order: Order,
    /// Exactly the values, aligned for them.
    data: Buffer,
}

/// In which order the values of a tensor lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// The last index runs fastest, as in C.
    #[default]
    RowMajor,
    /// The first index runs fastest, as in Fortran.
    ColumnMajor,
}

impl Tensor {
    /// A tensor of the values in `data`, which lie there in `order` without gaps.
    ///
    /// # Memory
    ///
    /// Shares `data`; copies it when it does not start where values of the type can lie.
    ///
    /// # Errors
    ///
    /// [`Misuse`](ck_core::ErrorKind::Misuse) for a type that is not primitive, and when `data` does not
    /// have exactly the bytes that the shape needs.
    pub fn new(
        data_type: DataType,
        shape: impl Into<Vec<usize>>,
        order: Order,
        data: Buffer,
    ) -> Result<Self> {
        let shape = shape.into();
        let Some(width) = data_type.primitive_width() else {
            return Err(misuse("values of this type cannot make a tensor").with("type", data_type));
        };
        if bytes_of(&shape, width) != Some(data.len()) {
            return Err(
                misuse("the values of a tensor are not as many as its shape says")
                    .with("shape", format_args!("{shape:?}"))
                    .with("type", data_type)
                    .with("bytes", data.len()),
            );
        }
        let is_aligned = (data.as_ptr() as usize).is_multiple_of(width.min(MAX_ALIGNMENT));
        Ok(Self {
            data_type,
            shape,
            order,
            data: if is_aligned {
                data
            } else {
                Buffer::from(data.as_slice())
            },
        })
    }

    /// A tensor of these values, which come in `order`.
    ///
    /// # Errors
    ///
    /// [`Misuse`](ck_core::ErrorKind::Misuse) when there are not exactly as many as the shape says.
    pub fn from_values<T: ArrowPrimitiveType>(
        values: impl Into<ScalarBuffer<T::Native>>,
        shape: impl Into<Vec<usize>>,
        order: Order,
    ) -> Result<Self> {
        Self::new(T::DATA_TYPE, shape, order, values.into().into_inner())
    }

    /// The type of the values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The length of each dimension. Empty for a single value.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// In which order the values lie.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// The bytes from one value to the next along each dimension.
    #[must_use]
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.shape, self.order, self.width())
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.width()
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The bytes of the values, in [`Tensor::order`].
    #[must_use]
    pub fn data(&self) -> &Buffer {
        &self.data
    }

    /// Bytes of heap memory that the tensor keeps alive. What lies in `mapping` is not heap.
    ///
    /// A tensor that was decoded keeps all of its message.
    #[must_use]
    pub fn heap_bytes(&self, mapping: Option<&Bytes>) -> u64 {
        let is_mapped = mapping.is_some_and(|mapping| {
            let range = mapping.as_ptr_range();
            range.contains(&self.data.data_ptr().as_ptr().cast_const())
        });
        let values = if is_mapped { 0 } else { self.data.capacity() };
        let shape = self.shape.capacity() * size_of::<usize>();
        let zone = match &self.data_type {
            DataType::Timestamp(_, Some(zone)) => COUNTERS + zone.len(),
            _ => 0,
        };
        (values + BUFFER_HEADER + shape + zone) as u64
    }

    /// The values, in [`Tensor::order`], shared.
    ///
    /// # Errors
    ///
    /// [`Misuse`](ck_core::ErrorKind::Misuse) when they are not of the type `T`; the parameters of a
    /// decimal and the time zone of a timestamp do not matter.
    pub fn values<T: ArrowPrimitiveType>(&self) -> Result<ScalarBuffer<T::Native>> {
        if !PrimitiveArray::<T>::is_compatible(&self.data_type) {
            return Err(self.wrong_type(&T::DATA_TYPE));
        }
        Ok(ScalarBuffer::new(self.data.clone(), 0, self.len()))
    }

    /// Where the value with this index lies among [`Tensor::values`]; `None` outside of the shape.
    #[must_use]
    pub fn position(&self, index: &[usize]) -> Option<usize> {
        let is_inside = index.iter().zip(&self.shape).all(|(at, len)| at < len);
        if index.len() != self.shape.len() || !is_inside {
            return None;
        }
        let strides = strides(&self.shape, self.order, 1);
        Some(
            index
                .iter()
                .zip(strides)
                .map(|(at, stride)| at * stride)
                .sum(),
        )
    }

    fn width(&self) -> usize {
        // Checked when the tensor was made.
        self.data_type.primitive_width().unwrap_or(1)
    }

    fn wrong_type(&self, wanted: &DataType) -> Error {
        misuse("the values of a tensor are of another type")
            .with("wanted", wanted)
            .with("found", &self.data_type)
    }
}

/// Without the values, which are many.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("data_type", &self.data_type)
            .field("shape", &self.shape)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// The two counters in front of what an [`Arc`](std::sync::Arc) holds.
const COUNTERS: usize = 2 * size_of::<usize>();

/// What a [`Buffer`] shares with its slices besides the bytes; one that borrows has the owner there, too.
const BUFFER_HEADER: usize = COUNTERS + 5 * size_of::<usize>();

/// No primitive type needs more.
const MAX_ALIGNMENT: usize = 16;

/// The bytes that a shape takes; `None` when no memory has them.
pub(crate) fn bytes_of(shape: &[usize], width: usize) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(width, |bytes, len| bytes.checked_mul(*len))
}

/// What strides a shape has whose bytes [`bytes_of`] could count.
pub(crate) fn strides(shape: &[usize], order: Order, width: usize) -> Vec<usize> {
    let mut strides = vec![width; shape.len()];
    let mut stride = width;
    let mut set = |at: usize| {
        strides[at] = stride;
        // Overflows beside a dimension of zero only, where no stride matters.
        stride = stride.saturating_mul(shape[at]);
    };
    match order {
        Order::RowMajor => (0..shape.len()).rev().for_each(&mut set),
        Order::ColumnMajor => (0..shape.len()).for_each(&mut set),
    }
    strides
}
