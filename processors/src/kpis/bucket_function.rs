//! The SQL function `bucket(time)`: the start of the bucket a time lies in.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{AsArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimestampMicrosecondType},
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
