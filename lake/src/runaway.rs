//! What keeps one query from taking the machine: operators that make many rows of few let others run, and functions do
//! not make values of any size.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array},
        compute::{cast, kernels::length::length},
        datatypes::{
            DataType, FieldRef, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
        },
    },
    common::{
        Result,
        config::ConfigOptions,
        exec_err,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, coop::CooperativeExec},
    prelude::SessionContext,
};

/// Joins, and what unfolds lists or repeats itself, make as many rows as they like of what they have read: they have to
/// let others run between them. The engine sees to that only where rows are read.
#[derive(Debug)]
pub(crate) struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|plan| {
            let multiplies =
                plan.name().ends_with("JoinExec") || matches!(plan.name(), "UnnestExec" | "RecursiveQueryExec");
            Ok(if multiplies { Transformed::yes(Arc::new(CooperativeExec::new(plan))) } else { Transformed::no(plan) })
        })?;
        Ok(wrapped.data)
    }

    fn name(&self) -> &'static str {
        "Yielding"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What a function may make of one batch of rows, in bytes: the memory that queries share does not count it.
const MOST_AT_ONCE: f64 = (256_u32 << 20) as f64;

/// Guard the functions that can make much of little.
pub(crate) fn bound_functions(context: &SessionContext) {
    const GUARDED: [(&str, Size); 10] = [
        ("repeat", |values| product(bytes(values, 0)?, &number(values, 1)?)),
        ("lpad", |values| sum(&number(values, 1)?)),
        ("rpad", |values| sum(&number(values, 1)?)),
        ("replace", |values| replaced(values)),
        ("regexp_replace", |values| replaced(values)),
        ("range", |values| steps(values)),
        ("generate_series", |values| steps(values)),
        ("array_repeat", |values| product(bytes(values, 0)?, &number(values, 1)?)),
        ("array_resize", |values| sum(&number(values, 1)?).map(|items| items * 8.0)),
        ("factorial", |values| sum(&number(values, 0)?).map(|steps| if steps > 1_000.0 { f64::MAX } else { 0.0 })),
    ];
    let state = context.state();
    for (name, size) in GUARDED {
        if let Some(function) = state.scalar_functions().get(name) {
            context.register_udf(ScalarUDF::new_from_impl(Bounded { function: Arc::clone(function), size }));
        }
    }
}

/// About how many bytes a function makes of its arguments; none, when that cannot be told.
type Size = fn(&[ArrayRef]) -> Option<f64>;

/// A function that does not make more than so much at once.
struct Bounded {
    function: Arc<ScalarUDF>,
    size: Size,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("function", &self.function).finish_non_exhaustive()
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        let size = (self.size)(&values).unwrap_or_default();
        if size > MOST_AT_ONCE {
            let megabytes = MOST_AT_ONCE / f64::from(1 << 20);
            return exec_err!("{} would make more than {megabytes} MB at once", self.name());
        }
        self.function.invoke_with_args(arguments)
    }
}

fn number(values: &[ArrayRef], index: usize) -> Option<Int64Array> {
    let numbers = cast(values.get(index)?, &DataType::Int64).ok()?;
    Some(numbers.as_primitive::<Int64Type>().clone())
}

/// The bytes of each value, or of one of its kind.
fn bytes(values: &[ArrayRef], index: usize) -> Option<Vec<f64>> {
    let column = values.get(index)?;
    match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary => {
            let lengths = cast(&length(column).ok()?, &DataType::Float64).ok()?;
            Some(lengths.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
        }
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let each = column.get_array_memory_size() as f64 / column.len().max(1) as f64;
            Some(vec![each.max(8.0); column.len()])
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn sum(numbers: &Int64Array) -> Option<f64> {
    Some(numbers.iter().flatten().map(|number| number.max(0) as f64).sum())
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn product(sizes: Vec<f64>, times: &Int64Array) -> Option<f64> {
    Some(sizes.iter().zip(times).map(|(size, times)| size * times.unwrap_or_default().max(0) as f64).sum())
}

/// At most every part of a text is replaced.
fn replaced(values: &[ArrayRef]) -> Option<f64> {
    let (texts, parts, by) = (bytes(values, 0)?, bytes(values, 1)?, bytes(values, 2)?);
    Some(texts.iter().zip(parts).zip(by).map(|((text, part), by)| text + text / part.max(1.0) * by).sum())
}

/// From, to and by: numbers, or times and an interval.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn steps(values: &[ArrayRef]) -> Option<f64> {
    let of = |index: usize| -> Option<Vec<f64>> {
        let column = values.get(index)?;
        let column = match column.data_type() {
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => {
                cast(&cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?, &DataType::Int64).ok()?
            }
            _ => Arc::clone(column),
        };
        let numbers = cast(&column, &DataType::Float64).ok()?;
        Some(numbers.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect())
    };
    let (from, to) = match values.len() {
        1 => (vec![0.0; values[0].len()], of(0)?),
        _ => (of(0)?, of(1)?),
    };
    let by: Vec<f64> = match values.get(2) {
        None => vec![1.0; from.len()],
        Some(step) => match step.as_primitive_opt::<IntervalMonthDayNanoType>() {
            Some(intervals) => {
                const DAY: f64 = 86_400e9;
                let nanoseconds = |step: IntervalMonthDayNano| {
                    f64::from(step.months) * 28.0 * DAY + f64::from(step.days) * DAY + step.nanoseconds as f64
                };
                intervals.iter().map(|step| step.map_or(0.0, nanoseconds)).collect()
            }
            None => of(2)?,
        },
    };
    let each =
        from.iter().zip(to).zip(by).map(|((from, to), by)| if by == 0.0 { 0.0 } else { ((to - from) / by).max(0.0) });
    Some(each.sum::<f64>() * 8.0)
}
