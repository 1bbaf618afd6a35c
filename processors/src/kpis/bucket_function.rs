//! The SQL functions `bucket(time)`, the start of the bucket a time lies in, and `buckets(time)`, the starts of those whose
//! windows it lies in.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{AsArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, TimestampMicrosecondType},
};
use datafusion::{
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use schemas::{columns::timestamp_type, field_type::UTC};

use crate::calendar::Calendar;

#[derive(Debug)]
pub(crate) struct Bucket {
    calendar: Calendar,
    signature: Signature,
}

impl Bucket {
    pub(crate) fn new(calendar: Calendar) -> Self {
        Self { calendar, signature: Signature::exact(vec![timestamp_type()], Volatility::Immutable) }
    }
}

impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        self.calendar == other.calendar
    }
}

impl Eq for Bucket {}

impl Hash for Bucket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.calendar.hash(state);
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
#[derive(Debug)]
pub(crate) struct Buckets {
    calendar: Calendar,
    window: u32,
    signature: Signature,
}

impl Buckets {
    pub(crate) fn new(calendar: Calendar, window: u32) -> Self {
        Self { calendar, window, signature: Signature::exact(vec![timestamp_type()], Volatility::Immutable) }
    }
}

impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        (self.calendar, self.window) == (other.calendar, other.window)
    }
}

impl Eq for Buckets {}

impl Hash for Buckets {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.calendar, self.window).hash(state);
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
