//! The types of tensors, as Arrow's messages name them.
//!
//! Format: <https://github.com/apache/arrow/blob/main/format/Schema.fbs>

use arrow_ipc::{
    Date, DateArgs, DateUnit, Decimal, DecimalArgs, Duration, DurationArgs, FloatingPoint,
    FloatingPointArgs, Int, IntArgs, Interval, IntervalArgs, Precision, Tensor, Time, TimeArgs,
    TimeUnit as IpcTimeUnit, Timestamp, TimestampArgs, Type,
};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

/// Adds a type; `None` when tensors do not have it.
pub(crate) fn add(
    fbb: &mut FlatBufferBuilder<'_>,
    data_type: &DataType,
) -> Option<(Type, WIPOffset<UnionWIPOffset>)> {
    let int = |bit_width: i32, is_signed: bool| IntArgs {
        bitWidth: bit_width,
        is_signed,
    };
    let decimal = |bit_width: i32, precision: u8, scale: i8| DecimalArgs {
        precision: precision.into(),
        scale: scale.into(),
        bitWidth: bit_width,
    };
    let integer = match data_type {
        DataType::Int8 => Some(int(8, true)),
        DataType::Int16 => Some(int(16, true)),
        DataType::Int32 => Some(int(32, true)),
        DataType::Int64 => Some(int(64, true)),
        DataType::UInt8 => Some(int(8, false)),
        DataType::UInt16 => Some(int(16, false)),
        DataType::UInt32 => Some(int(32, false)),
        DataType::UInt64 => Some(int(64, false)),
        _ => None,
    };
    if let Some(args) = integer {
        return Some((Type::Int, Int::create(fbb, &args).as_union_value()));
    }
    let precision = match data_type {
        DataType::Float16 => Some(Precision::HALF),
        DataType::Float32 => Some(Precision::SINGLE),
        DataType::Float64 => Some(Precision::DOUBLE),
        _ => None,
    };
    if let Some(precision) = precision {
        let float = FloatingPoint::create(fbb, &FloatingPointArgs { precision });
        return Some((Type::FloatingPoint, float.as_union_value()));
    }
    let decimal = match data_type {
        DataType::Decimal32(precision, scale) => Some(decimal(32, *precision, *scale)),
        DataType::Decimal64(precision, scale) => Some(decimal(64, *precision, *scale)),
        DataType::Decimal128(precision, scale) => Some(decimal(128, *precision, *scale)),
        DataType::Decimal256(precision, scale) => Some(decimal(256, *precision, *scale)),
        _ => None,
    };
    if let Some(args) = decimal {
        return Some((Type::Decimal, Decimal::create(fbb, &args).as_union_value()));
    }
    add_temporal(fbb, data_type)
}

fn add_temporal(
    fbb: &mut FlatBufferBuilder<'_>,
    data_type: &DataType,
) -> Option<(Type, WIPOffset<UnionWIPOffset>)> {
    let time = |bit_width: i32, unit: &TimeUnit| TimeArgs {
        unit: time_unit(*unit),
        bitWidth: bit_width,
    };
    let mut date = |unit: DateUnit| Date::create(fbb, &DateArgs { unit }).as_union_value();
    Some(match data_type {
        DataType::Date32 => (Type::Date, date(DateUnit::DAY)),
        DataType::Date64 => (Type::Date, date(DateUnit::MILLISECOND)),
        DataType::Time32(unit) => {
            let time = Time::create(fbb, &time(32, unit));
            (Type::Time, time.as_union_value())
        }
        DataType::Time64(unit) => {
            let time = Time::create(fbb, &time(64, unit));
            (Type::Time, time.as_union_value())
        }
        DataType::Timestamp(unit, zone) => {
            let timezone = zone.as_ref().map(|zone| fbb.create_string(zone));
            let unit = time_unit(*unit);
            let timestamp = Timestamp::create(fbb, &TimestampArgs { unit, timezone });
            (Type::Timestamp, timestamp.as_union_value())
        }
        DataType::Duration(unit) => {
            let unit = time_unit(*unit);
            let duration = Duration::create(fbb, &DurationArgs { unit });
            (Type::Duration, duration.as_union_value())
        }
        DataType::Interval(unit) => {
            let unit = match unit {
                IntervalUnit::YearMonth => arrow_ipc::IntervalUnit::YEAR_MONTH,
                IntervalUnit::DayTime => arrow_ipc::IntervalUnit::DAY_TIME,
                IntervalUnit::MonthDayNano => arrow_ipc::IntervalUnit::MONTH_DAY_NANO,
            };
            let interval = Interval::create(fbb, &IntervalArgs { unit });
            (Type::Interval, interval.as_union_value())
        }
        _ => return None,
    })
}

/// The type of a tensor; `None` for one that tensors do not have, or that does not exist.
pub(crate) fn of(tensor: &Tensor<'_>) -> Option<DataType> {
    Some(match tensor.type_type() {
        Type::Int => {
            let int = tensor.type_as_int()?;
            match (int.bitWidth(), int.is_signed()) {
                (8, true) => DataType::Int8,
                (16, true) => DataType::Int16,
                (32, true) => DataType::Int32,
                (64, true) => DataType::Int64,
                (8, false) => DataType::UInt8,
                (16, false) => DataType::UInt16,
                (32, false) => DataType::UInt32,
                (64, false) => DataType::UInt64,
                _ => return None,
            }
        }
        Type::FloatingPoint => match tensor.type_as_floating_point()?.precision() {
            Precision::HALF => DataType::Float16,
            Precision::SINGLE => DataType::Float32,
            Precision::DOUBLE => DataType::Float64,
            _ => return None,
        },
        Type::Decimal => {
            let decimal = tensor.type_as_decimal()?;
            let precision = u8::try_from(decimal.precision()).ok()?;
            let scale = i8::try_from(decimal.scale()).ok()?;
            match decimal.bitWidth() {
                32 => DataType::Decimal32(precision, scale),
                64 => DataType::Decimal64(precision, scale),
                128 => DataType::Decimal128(precision, scale),
                256 => DataType::Decimal256(precision, scale),
                _ => return None,
            }
        }
        Type::Date => match tensor.type_as_date()?.unit() {
            DateUnit::DAY => DataType::Date32,
            DateUnit::MILLISECOND => DataType::Date64,
            _ => return None,
        },
        Type::Time => {
            let time = tensor.type_as_time()?;
            let unit = known_unit(time.unit())?;
            match (time.bitWidth(), unit) {
                (32, TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                (64, TimeUnit::Microsecond | TimeUnit::Nanosecond) => DataType::Time64(unit),
                _ => return None,
            }
        }
        Type::Timestamp => {
            let timestamp = tensor.type_as_timestamp()?;
            let zone = timestamp.timezone().map(Into::into);
            DataType::Timestamp(known_unit(timestamp.unit())?, zone)
        }
        Type::Duration => DataType::Duration(known_unit(tensor.type_as_duration()?.unit())?),
        Type::Interval => DataType::Interval(match tensor.type_as_interval()?.unit() {
            arrow_ipc::IntervalUnit::YEAR_MONTH => IntervalUnit::YearMonth,
            arrow_ipc::IntervalUnit::DAY_TIME => IntervalUnit::DayTime,
            arrow_ipc::IntervalUnit::MONTH_DAY_NANO => IntervalUnit::MonthDayNano,
            _ => return None,
        }),
        _ => return None,
    })
}

fn time_unit(unit: TimeUnit) -> IpcTimeUnit {
    match unit {
        TimeUnit::Second => IpcTimeUnit::SECOND,
        TimeUnit::Millisecond => IpcTimeUnit::MILLISECOND,
        TimeUnit::Microsecond => IpcTimeUnit::MICROSECOND,
        TimeUnit::Nanosecond => IpcTimeUnit::NANOSECOND,
    }
}

fn known_unit(unit: IpcTimeUnit) -> Option<TimeUnit> {
    match unit {
        IpcTimeUnit::SECOND => Some(TimeUnit::Second),
        IpcTimeUnit::MILLISECOND => Some(TimeUnit::Millisecond),
        IpcTimeUnit::MICROSECOND => Some(TimeUnit::Microsecond),
        IpcTimeUnit::NANOSECOND => Some(TimeUnit::Nanosecond),
        _ => None,
    }
}
