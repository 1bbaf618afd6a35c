//! How tables look on a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets::NOTHING};

/// An empty table: a line under the header, none between rows.
pub(crate) fn table<T: ToString>(header: impl IntoIterator<Item = T>) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_style(TableComponent::HeaderLines, '═').set_style(TableComponent::MiddleHeaderIntersections, '═');
    table.set_header(header.into_iter().map(|name| name.to_string()));
    table
}

/// An empty table that fits the terminal: long cells go over several lines. Where no terminal is, it is as wide as it is.
pub(crate) fn fitted<T: ToString>(header: impl IntoIterator<Item = T>) -> Table {
    let mut table = table(header);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// Align a column of numbers.
pub(crate) fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
