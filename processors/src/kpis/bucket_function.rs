//! The SQL functions `bucket(time)`, the start of the bucket a time lies in, `buckets(time)`, the starts of those whose
//! windows it lies in, and `years(bucket)` or `years(from, to)`, how long a bucket's window or a range is.

use std::sync::Arc;

use arrow::{
    array::{AsArray, Float64Array, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, TimestampMicrosecondType},
};
use datafusion::{
    common::{Result, internal_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
};
use schemas::{columns::timestamp_type, field_type::UTC};

use crate::calendar::Calendar;

/// The functions of a calendar, for windows of so many buckets.
pub(crate) fn functions(calendar: Calendar, window: u32) -> Vec<ScalarUDF> {
    vec![
        ScalarUDF::new_from_impl(Bucket::new(calendar)),
        ScalarUDF::new_from_impl(Buckets::new(calendar, window)),
        ScalarUDF::new_from_impl(Years::new(calendar, window)),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bucket {
    calendar: Calendar,
    signature: Signature,
}

impl Bucket {
    fn new(calendar: Calendar) -> Self {
        Self { calendar, signature: Signature::exact(vec![timestamp_type()], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Bucket {
    fn name(&self) -> &str {
        "bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        // Rows come sorted by time, so most lie in the bucket of the row before.
        let mut last: Option<(i64, i64)> = None;
        let starts = times.iter().map(|time| {
            let time = time?;
            if let Some((start, _)) = last.filter(|(start, end)| (*start..*end).contains(&time)) {
                return Some(start);
            }
            let start = self.calendar.start(time)?;
            last = self.calendar.next(start).map(|end| (start, end));
            Some(start)
        });
        let starts: TimestampMicrosecondArray = starts.collect();
        Ok(ColumnarValue::Array(Arc::new(starts.with_timezone(UTC))))
    }
}

/// `buckets(time)`: a window ends with its bucket, and is so many buckets long.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Buckets {
    calendar: Calendar,
    window: u32,
    signature: Signature,
}

impl Buckets {
    fn new(calendar: Calendar, window: u32) -> Self {
        Self { calendar, window, signature: Signature::exact(vec![timestamp_type()], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Buckets {
    fn name(&self) -> &str {
        "buckets"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", timestamp_type(), true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let item = Field::new("item", timestamp_type(), true);
        let starts = TimestampMicrosecondBuilder::new().with_timezone(UTC);
        let mut lists = ListBuilder::new(starts).with_field(item);
        for time in times.as_primitive::<TimestampMicrosecondType>() {
            let mut start = time.and_then(|time| self.calendar.start(time));
            for _ in 0..self.window {
                let Some(at) = start else { break };
                lists.values().append_value(at);
                start = self.calendar.next(at);
            }
            lists.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}

/// `years(bucket)` or `years(from, to)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Years {
    calendar: Calendar,
    window: u32,
    signature: Signature,
}

impl Years {
    fn new(calendar: Calendar, window: u32) -> Self {
        let times = |count: usize| TypeSignature::Exact(vec![timestamp_type(); count]);
        Self { calendar, window, signature: Signature::one_of(vec![times(1), times(2)], Volatility::Immutable) }
    }

    fn of_bucket(&self, start: i64) -> Option<f64> {
        let first = self.calendar.offset(start, 1 - i64::from(self.window))?;
        self.calendar.years(first, self.calendar.next(start)?)
    }
}

impl ScalarUDFImpl for Years {
    fn name(&self) -> &str {
        "years"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let times: Vec<_> = arrays.iter().map(|times| times.as_primitive::<TimestampMicrosecondType>()).collect();
        let years: Float64Array = match times.as_slice() {
            [starts] => starts.iter().map(|start| self.of_bucket(start?)).collect(),
            [from, to] => from.iter().zip(to.iter()).map(|(from, to)| self.calendar.years(from?, to?)).collect(),
            _ => return internal_err!("years takes a bucket, or two times"),
        };
        Ok(ColumnarValue::Array(Arc::new(years)))
    }
}
