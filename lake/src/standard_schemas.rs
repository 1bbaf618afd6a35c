//! `information_schema` and `pg_catalog`: how the clients of a database find its tables, columns and their meanings.
//!
//! What tables there are does not change while the process runs, so both are made once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, new_null_array},
        datatypes::{DataType, Field, Int32Type, Schema},
    },
    catalog::{
        MemTable, MemorySchemaProvider, SchemaProvider, TableProvider, information_schema::InformationSchemaProvider,
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, scalar::ScalarStructBuilder},
    datasource::empty::EmptyTable,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
    prelude::SessionContext,
};
use datafusion_pg_catalog::pg_catalog::{context::EmptyContextProvider, setup_pg_catalog};

use crate::{
    schema_names::{DATABASE, DEFAULT_SCHEMA, INFORMATION_SCHEMA, PG_CATALOG},
    sql_type::sql_type,
    table_description::TableDescription,
};

/// Both schemas.
#[derive(Clone, Debug)]
pub(crate) struct StandardSchemas {
    information: Arc<Information>,
    postgres: Arc<dyn SchemaProvider>,
}

impl StandardSchemas {
    /// Teach a context Postgres's functions and catalogue; the tables of the latter are those of [`Self::new`].
    pub(crate) fn set_up(context: &SessionContext) -> Result<()> {
        setup_pg_catalog(context, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
        for (name, answer) in constants() {
            context.register_udf(ScalarUDF::new_from_impl(Constant { name, answer, signature: anything() }));
        }
        Ok(())
    }

    /// The schemas that tell of these tables. `context` was set up for it.
    pub(crate) async fn new(context: &SessionContext, tables: &[TableDescription]) -> Result<Self> {
        let missing = |what: &str| DataFusionError::Internal(format!("there is no {what}"));
        let catalog = context.catalog(DATABASE).ok_or_else(|| missing(DATABASE))?;
        // Its tables are seen through this catalogue, by name and columns; it never reads them.
        for table in tables {
            if catalog.schema(&table.schema).is_none() {
                catalog.register_schema(&table.schema, Arc::new(MemorySchemaProvider::new()))?;
            }
            let schema = catalog.schema(&table.schema).ok_or_else(|| missing(&table.schema))?;
            // Somebody may have begun this, and gone away.
            schema.deregister_table(&table.name)?;
            schema.register_table(table.name.clone(), Arc::new(EmptyTable::new(table.arrow())))?;
        }
        let postgres = catalog.schema(PG_CATALOG).ok_or_else(|| missing(PG_CATALOG))?;
        let Numbers { pg_class, comments } = comments(context, tables).await?;
        context.register_udf(ScalarUDF::new_from_impl(Describes::new("obj_description", &comments)));
        context.register_udf(ScalarUDF::new_from_impl(Describes::new("col_description", &comments)));
        let described = Arc::new(pg_description(pg_class, &comments)?);
        let postgres = Arc::new(WithDescriptions { postgres, described });
        let functions = InformationSchemaProvider::new(Arc::clone(context.state().catalog_list()));
        let information = Arc::new(Information { tables: information_schema(tables)?, functions });
        Ok(Self { information, postgres })
    }

    pub(crate) fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            INFORMATION_SCHEMA => Some(Arc::clone(&self.information) as Arc<dyn SchemaProvider>),
            PG_CATALOG => Some(Arc::clone(&self.postgres)),
            _ => None,
        }
    }
}

/// What functions answer that clients of Postgres call, whatever they are asked of.
fn constants() -> [(&'static str, ScalarValue); 19] {
    // A place of an index's columns; there are no indexes.
    let place = ["x", "n"].map(|name| Field::new(name, DataType::Int32, true));
    let version = format!("PostgreSQL 16.6 (Forecourt {})", env!("CARGO_PKG_VERSION"));
    [
        ("version", ScalarValue::from(version)),
        ("_pg_expandarray", ScalarStructBuilder::new_null(place.to_vec())),
        ("current_schema", ScalarValue::from(DEFAULT_SCHEMA)),
        ("current_setting", ScalarValue::Utf8(None)),
        ("generate_subscripts", ScalarValue::Int32(None)),
        ("json_build_object", ScalarValue::Utf8(None)),
        ("pg_advisory_unlock_all", ScalarValue::Utf8(None)),
        ("pg_collation_is_visible", ScalarValue::from(true)),
        ("pg_function_is_visible", ScalarValue::from(true)),
        ("pg_get_function_arguments", ScalarValue::Utf8(None)),
        ("pg_get_function_result", ScalarValue::Utf8(None)),
        ("pg_get_indexdef", ScalarValue::Utf8(None)),
        ("pg_get_serial_sequence", ScalarValue::Utf8(None)),
        ("pg_get_viewdef", ScalarValue::Utf8(None)),
        ("pg_is_in_recovery", ScalarValue::from(false)),
        ("pg_size_pretty", ScalarValue::Utf8(None)),
        ("pg_table_is_visible", ScalarValue::from(true)),
        ("pg_type_is_visible", ScalarValue::from(true)),
        ("to_regtype", ScalarValue::Int32(None)),
    ]
}

/// A function that always answers the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    answer: ScalarValue,
    signature: Signature,
}

fn anything() -> Signature {
    Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable)
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.answer.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.answer.clone()))
    }
}

/// Comments by table and column; column 0 is the table itself.
type Comments = HashMap<(i32, i32), String>;

/// What `pg_class` numbers the tables with.
struct Numbers {
    /// Itself: what is described is a row of it.
    pg_class: i32,
    comments: Arc<Comments>,
}

/// The comments, by the numbers that `pg_class` gives the tables.
async fn comments(context: &SessionContext, tables: &[TableDescription]) -> Result<Numbers> {
    let numbers = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class AS c \
                   JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid";
    let (mut comments, mut pg_class) = (Comments::new(), 0);
    for batch in context.sql(numbers).await?.collect().await? {
        let oids = batch.column(0).as_primitive::<Int32Type>();
        let names = |column: usize| datafusion::arrow::compute::cast(batch.column(column), &DataType::Utf8);
        let (schemas, names) = (names(1)?, names(2)?);
        let (schemas, names) = (schemas.as_string::<i32>(), names.as_string::<i32>());
        for row in 0..batch.num_rows() {
            let (schema, name) = (schemas.value(row), names.value(row));
            if (schema, name) == (PG_CATALOG, "pg_class") {
                pg_class = oids.value(row);
            }
            let Some(table) = tables.iter().find(|table| table.schema == schema && table.name == name) else {
                continue;
            };
            comments.insert((oids.value(row), 0), table.meaning.clone());
            for (number, column) in (1..).zip(&table.columns) {
                comments.insert((oids.value(row), number), column.comment());
            }
        }
    }
    comments.retain(|_, comment| !comment.is_empty());
    Ok(Numbers { pg_class, comments: Arc::new(comments) })
}

fn pg_description(pg_class: i32, comments: &Comments) -> Result<MemTable> {
    let mut keys: Vec<&(i32, i32)> = comments.keys().collect();
    keys.sort();
    let texts: StringArray = keys.iter().map(|key| comments.get(key)).collect();
    table(vec![
        ("objoid", Arc::new(keys.iter().map(|(table, _)| Some(*table)).collect::<Int32Array>())),
        ("classoid", Arc::new(keys.iter().map(|_| Some(pg_class)).collect::<Int32Array>())),
        ("objsubid", Arc::new(keys.iter().map(|(_, column)| Some(*column)).collect::<Int32Array>())),
        ("description", Arc::new(texts)),
    ])
}

/// `pg_catalog` with our comments in `pg_description`.
#[derive(Debug)]
struct WithDescriptions {
    postgres: Arc<dyn SchemaProvider>,
    described: Arc<MemTable>,
}

#[async_trait]
impl SchemaProvider for WithDescriptions {
    fn table_names(&self) -> Vec<String> {
        self.postgres.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match name {
            "pg_description" => Ok(Some(Arc::clone(&self.described) as Arc<dyn TableProvider>)),
            _ => self.postgres.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.postgres.table_exist(name)
    }
}

/// `obj_description(table)` and `col_description(table, column)`.
#[derive(PartialEq, Eq, Hash)]
struct Describes {
    name: &'static str,
    signature: Signature,
    comments: Known,
}

/// Comments, told apart by where they are: they never change.
#[derive(Clone)]
struct Known(Arc<Comments>);

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Known {}

impl std::hash::Hash for Known {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Weak::as_ptr(&Arc::downgrade(&self.0)).hash(state);
    }
}

impl fmt::Debug for Describes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Describes").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Describes {
    fn new(name: &'static str, comments: &Arc<Comments>) -> Self {
        let signatures = match name {
            "col_description" => vec![TypeSignature::Exact(vec![DataType::Int32, DataType::Int32])],
            _ => vec![
                TypeSignature::Exact(vec![DataType::Int32]),
                TypeSignature::Exact(vec![DataType::Int32, DataType::Utf8]),
            ],
        };
        let signature = Signature::one_of(signatures, Volatility::Stable);
        Self { name, signature, comments: Known(Arc::clone(comments)) }
    }
}

impl ScalarUDFImpl for Describes {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(tables) = columns.first().and_then(|tables| tables.as_primitive_opt::<Int32Type>()) else {
            return exec_err!("{} is of a table", self.name);
        };
        let numbers = match columns.get(1) {
            Some(numbers) if self.name == "col_description" => Some(numbers.as_primitive::<Int32Type>().clone()),
            _ => None,
        };
        let comment = |row: usize| {
            let column = numbers.as_ref().map_or(0, |numbers| numbers.value(row));
            (!tables.is_null(row)).then(|| self.comments.0.get(&(tables.value(row), column))).flatten()
        };
        let texts: StringArray = (0..tables.len()).map(comment).collect();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}

/// `information_schema`: what there is of tables is ours, and of functions the engine's.
#[derive(Debug)]
struct Information {
    tables: HashMap<&'static str, Arc<MemTable>>,
    functions: InformationSchemaProvider,
}

impl Information {
    const FUNCTIONS: [&str; 2] = ["parameters", "routines"];
}

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().copied().chain(Self::FUNCTIONS).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if Self::FUNCTIONS.contains(&name) {
            return self.functions.table(name).await;
        }
        Ok(self.tables.get(name).map(|table| Arc::clone(table) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name) || Self::FUNCTIONS.contains(&name)
    }
}

/// The tables of SQL's own `information_schema` that clients ask for, with our comments at their end.
fn information_schema(tables: &[TableDescription]) -> Result<HashMap<&'static str, Arc<MemTable>>> {
    let mut schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    schemas.dedup();
    let columns: Vec<_> =
        tables.iter().flat_map(|table| (1..).zip(&table.columns).map(move |column| (table, column))).collect();
    let of_columns = |text: &dyn Fn(&TableDescription, i32, usize) -> Option<String>| -> ArrayRef {
        Arc::new(
            columns
                .iter()
                .map(|(table, (number, _))| text(table, *number, (*number as usize).saturating_sub(1)))
                .collect::<StringArray>(),
        )
    };
    let of_tables = |text: &dyn Fn(&TableDescription) -> String| -> ArrayRef {
        Arc::new(tables.iter().map(|table| Some(text(table))).collect::<StringArray>())
    };
    let fixed = |value: &str, rows: usize| -> ArrayRef { Arc::new(StringArray::from(vec![value; rows])) };
    let none = |rows: usize, kind: DataType| new_null_array(&kind, rows);
    let (rows, all) = (columns.len(), tables.len());
    let numbers: Int32Array = columns.iter().map(|(_, (number, _))| Some(*number)).collect();
    let kinds = columns.iter().map(|(_, (_, column))| &column.kind);
    let precision: Int32Array = kinds.clone().map(|kind| numeric(kind).map(|(precision, _)| precision)).collect();
    let scale: Int32Array = kinds.clone().map(|kind| numeric(kind).map(|(_, scale)| scale)).collect();
    let of_time: Int32Array = kinds.map(|kind| matches!(kind, DataType::Timestamp(_, _)).then_some(6)).collect();
    let text = DataType::Utf8;
    let described = table(vec![
        ("table_catalog", fixed(DATABASE, rows)),
        ("table_schema", of_columns(&|table, _, _| Some(table.schema.clone()))),
        ("table_name", of_columns(&|table, _, _| Some(table.name.clone()))),
        ("column_name", of_columns(&|table, _, at| Some(table.columns[at].name.clone()))),
        ("ordinal_position", Arc::new(numbers)),
        ("column_default", none(rows, text.clone())),
        ("is_nullable", of_columns(&|table, _, at| Some(yes_or_no(table.columns[at].nullable)))),
        ("data_type", of_columns(&|table, _, at| Some(standard_type(&table.columns[at].kind)))),
        ("character_maximum_length", none(rows, DataType::Int32)),
        ("character_octet_length", none(rows, DataType::Int32)),
        ("numeric_precision", Arc::new(precision)),
        ("numeric_scale", Arc::new(scale)),
        ("datetime_precision", Arc::new(of_time)),
        ("udt_name", of_columns(&|table, _, at| Some(internal_type(&table.columns[at].kind)))),
        ("is_updatable", fixed("NO", rows)),
        (
            "column_comment",
            of_columns(&|table, _, at| Some(table.columns[at].comment()).filter(|text| !text.is_empty())),
        ),
    ])?;
    let listed = table(vec![
        ("table_catalog", fixed(DATABASE, all)),
        ("table_schema", of_tables(&|table| table.schema.clone())),
        ("table_name", of_tables(&|table| table.name.clone())),
        ("table_type", fixed("VIEW", all)),
        ("is_insertable_into", fixed("NO", all)),
        ("table_comment", of_tables(&|table| table.meaning.clone())),
    ])?;
    let views = table(vec![
        ("table_catalog", fixed(DATABASE, all)),
        ("table_schema", of_tables(&|table| table.schema.clone())),
        ("table_name", of_tables(&|table| table.name.clone())),
        ("view_definition", none(all, text.clone())),
        ("is_updatable", fixed("NO", all)),
    ])?;
    let schemata = table(vec![
        ("catalog_name", fixed(DATABASE, schemas.len())),
        ("schema_name", Arc::new(StringArray::from(schemas.clone()))),
        ("schema_owner", fixed("analyst", schemas.len())),
    ])?;
    let keys =
        ["constraint_catalog", "constraint_schema", "constraint_name", "table_catalog", "table_schema", "table_name"];
    let empty = |more: &[&'static str]| {
        table(keys.iter().chain(more).map(|name| (*name, none(0, DataType::Utf8))).collect::<Vec<_>>())
    };
    let constraints = empty(&["constraint_type", "is_deferrable", "initially_deferred"])?;
    let key_columns = empty(&["column_name", "ordinal_position", "position_in_unique_constraint"])?;
    let references = empty(&["unique_constraint_name", "match_option", "update_rule", "delete_rule"])?;
    Ok(HashMap::from([
        ("columns", Arc::new(described)),
        ("tables", Arc::new(listed)),
        ("views", Arc::new(views)),
        ("schemata", Arc::new(schemata)),
        ("table_constraints", Arc::new(constraints)),
        ("key_column_usage", Arc::new(key_columns)),
        ("referential_constraints", Arc::new(references)),
    ]))
}

/// A table of these columns.
fn table(columns: Vec<(&str, ArrayRef)>) -> Result<MemTable> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, values)| values).collect())?;
    MemTable::try_new(schema, vec![vec![rows]])
}

fn yes_or_no(yes: bool) -> String {
    if yes { "YES" } else { "NO" }.to_owned()
}

/// Digits in all, and after the point.
fn numeric(kind: &DataType) -> Option<(i32, i32)> {
    match kind {
        DataType::Int16 => Some((16, 0)),
        DataType::Int32 => Some((32, 0)),
        DataType::Int64 => Some((64, 0)),
        DataType::Decimal128(precision, scale) => Some((i32::from(*precision), i32::from(*scale))),
        _ => None,
    }
}

/// A type as the SQL standard calls it.
fn standard_type(kind: &DataType) -> String {
    match kind {
        DataType::Int64 => "bigint",
        DataType::Float64 => "double precision",
        DataType::Decimal128(_, _) => "numeric",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::List(_) => "ARRAY",
        other => return sql_type(other),
    }
    .to_owned()
}

/// A type as Postgres calls it in its catalogue.
fn internal_type(kind: &DataType) -> String {
    match kind {
        DataType::Int16 => "int2".to_owned(),
        DataType::Int32 => "int4".to_owned(),
        DataType::Int64 => "int8".to_owned(),
        DataType::Float32 => "float4".to_owned(),
        DataType::Float64 => "float8".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Decimal128(_, _) => "numeric".to_owned(),
        DataType::List(item) => format!("_{}", internal_type(item.data_type())),
        other => sql_type(other),
    }
}
