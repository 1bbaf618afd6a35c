//! A table as SQL clients see it: its columns, their types and their meanings.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// A table as SQL sees it.
#[derive(Clone, Debug)]
pub struct TableDescription {
    pub schema: String,
    pub name: String,
    pub meaning: String,
    pub columns: Vec<ColumnDescription>,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct ColumnDescription {
    pub name: String,
    pub kind: DataType,
    pub nullable: bool,
    pub meaning: String,
    pub unit: Option<String>,
}

impl TableDescription {
    /// The table's columns, without their meanings.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        let field = |column: &ColumnDescription| Field::new(&column.name, column.kind.clone(), column.nullable);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}

impl ColumnDescription {
    /// What it means, and in which unit.
    #[must_use]
    pub fn comment(&self) -> String {
        match (&self.unit, self.meaning.as_str()) {
            (None, meaning) => meaning.to_owned(),
            (Some(unit), "") => unit.clone(),
            (Some(unit), meaning) => format!("{} ({unit})", meaning.trim_end_matches('.')),
        }
    }
}
