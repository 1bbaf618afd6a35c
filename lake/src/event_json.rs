//! The SQL function behind `lake.events.data`: an event's payload as JSON text.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, RecordBatch, StringBuilder},
        datatypes::DataType,
    },
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    prelude::{col, ident},
};
use schemas::{Catalogue, Context, ContextIndex, columns::EXTRA, rows};

use crate::plain_texts::plain_array;

/// Reads a context's payload columns and `extra`, in the context's order.
#[derive(Debug)]
struct EventJson {
    name: String,
    catalogue: Arc<Catalogue>,
    context: ContextIndex,
    signature: Signature,
}

impl EventJson {
    fn context(&self) -> &Context {
        self.catalogue.context_at(self.context)
    }
}

impl PartialEq for EventJson {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for EventJson {}

impl Hash for EventJson {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// `data` of a context's table.
#[must_use]
pub fn event_json(catalogue: &Arc<Catalogue>, index: ContextIndex) -> Expr {
    let context = catalogue.context_at(index);
    let function = EventJson {
        name: format!("event_json_{}", context.name),
        catalogue: Arc::clone(catalogue),
        context: index,
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    let mut arguments: Vec<Expr> = context.columns.iter().map(|column| ident(&column.name)).collect();
    arguments.push(col(EXTRA));
    ScalarUDF::new_from_impl(function).call(arguments)
}

impl ScalarUDFImpl for EventJson {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let context = self.context();
        let arrays: Vec<ArrayRef> =
            args.args.iter().map(|arg| Ok(plain_array(&arg.to_array(args.number_rows)?)?)).collect::<Result<_>>()?;
        let names = context.columns.iter().map(|column| column.name.as_str()).chain([EXTRA]);
        let batch =
            RecordBatch::try_from_iter_with_nullable(names.zip(arrays).map(|(name, array)| (name, array, true)))?;
        let mut texts = StringBuilder::new();
        for row in 0..args.number_rows {
            texts.append_value(serde_json::Value::Object(rows::payload(context, &batch, row)).to_string());
        }
        let texts = texts.finish();
        if texts.len() == 1 && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(texts.value(0).to_owned()))));
        }
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}
