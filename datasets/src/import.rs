//! Listing files as events: each row's part of a listing's story, told in the catalogue's words.
//!
//! - [`mapping`]: which column says what, as data;
//! - [`source`]: CSV and Parquet, row by row;
//! - `story`: the events of a row.
//!
//! Ids are made from what a row says, so that a file imported twice has no effect the second time. Every event is
//! checked as it would be at the door; nothing is guessed.

pub mod mapping;
pub mod source;
mod story;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Write},
};

use schemas::{Catalogue, EventKey, field_type::parse_timestamp, validation::parse_event};
use serde_json::{Map, Value};

use self::{
    mapping::{Field, Mapping, Reading, Step},
    source::{Row, Source, SourceError},
    story::Telling,
};

/// What lies between the rows of one time: more than a row's events take.
const MICROS_PER_ROW: i64 = 10_000;

/// A file that could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("has no column {column:?}, which mapping {mapping} reads; its columns are {}", there.join(", "))]
    NoColumn { column: String, mapping: String, there: Vec<String> },
    #[error("the events cannot be written")]
    Write(#[from] io::Error),
}

/// A row that was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub line: u64,
    /// A stable word for the reason, such as `missing_field`.
    pub code: &'static str,
    pub field: Option<String>,
    pub message: String,
}

/// A field's value that was left out because the field cannot have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub rows: u64,
    pub first_line: u64,
    pub first_text: String,
}

/// What became of a file's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub rows: u64,
    pub listings: u64,
    pub events: u64,
    /// Rows by the reason they were refused for.
    pub refused: BTreeMap<&'static str, u64>,
    /// Listings that say nothing of a field.
    pub missing: BTreeMap<String, u64>,
    pub left_out: BTreeMap<String, LeftOut>,
}

/// Turn every row of a file into events, one per line of `output`. `refused` is told of each row that is of no use.
///
/// # Errors
/// When the file is not what the mapping reads, or cannot be read to its end.
pub fn import(
    catalogue: &Catalogue,
    mapping: &Mapping,
    source: Source,
    output: &mut dyn Write,
    refused: &mut dyn FnMut(Refused),
) -> Result<ImportReport, ImportError> {
    let mut importer = Importer::new(catalogue, mapping, &source.columns)?;
    for row in source.rows {
        let row = row?;
        importer.report.rows += 1;
        importer.unusable.clear();
        match importer.events(&row) {
            Ok(events) => {
                importer.count_left_out(&row);
                importer.report.events += events.len() as u64;
                for event in events {
                    writeln!(output, "{event}")?;
                }
            }
            Err(reason) => {
                *importer.report.refused.entry(reason.code).or_default() += 1;
                refused(reason);
            }
        }
    }
    output.flush()?;
    Ok(importer.report)
}

struct Importer<'a> {
    catalogue: &'a Catalogue,
    mapping: &'a Mapping,
    columns: usize,
    /// Where each field's cell is; none for what every row says.
    cells: Vec<Option<usize>>,
    id: Option<usize>,
    /// Where the step and its time are.
    story: Option<(usize, usize)>,
    /// Rows of each time so far.
    rows_at: HashMap<i64, i64>,
    /// Every row so far, and every listing.
    rows: HashSet<EventKey>,
    seen: HashSet<EventKey>,
    /// Fields of the current row that cannot be used.
    unusable: Vec<usize>,
    report: ImportReport,
}

impl<'a> Importer<'a> {
    fn new(catalogue: &'a Catalogue, mapping: &'a Mapping, columns: &[String]) -> Result<Self, ImportError> {
        let find = |column: &str| {
            columns.iter().position(|name| name == column).ok_or_else(|| ImportError::NoColumn {
                column: column.to_owned(),
                mapping: mapping.name.clone(),
                there: columns.to_vec(),
            })
        };
        let cells = mapping.fields.iter().map(|field| mapping.column(field).map(find).transpose());
        Ok(Self {
            catalogue,
            mapping,
            columns: columns.len(),
            cells: cells.collect::<Result<_, _>>()?,
            id: mapping.id.as_deref().map(find).transpose()?,
            story: match &mapping.story {
                Some(story) => Some((find(&story.column)?, find(&story.time)?)),
                None => None,
            },
            rows_at: HashMap::new(),
            rows: HashSet::new(),
            seen: HashSet::new(),
            unusable: Vec::new(),
            report: ImportReport::default(),
        })
    }

    /// A row's events, each as the door would take it.
    fn events(&mut self, row: &Row) -> Result<Vec<String>, Refused> {
        let refuse = |code, field: Option<&str>, message: String| Refused {
            line: row.line,
            code,
            field: field.map(str::to_owned),
            message,
        };
        let Some(cells) = &row.cells else {
            return Err(refuse("invalid_utf8", None, "a cell is no UTF-8 text".to_owned()));
        };
        if cells.len() != self.columns {
            let message = format!("the row has {} cells and the file {} columns", cells.len(), self.columns);
            return Err(refuse("wrong_cells", None, message));
        }
        let (step, time) = self.step(cells).map_err(|(code, field, message)| refuse(code, Some(&field), message))?;
        let row_key = EventKey::of(&cells.join("\u{1f}"));
        if !self.rows.insert(row_key) {
            return Err(refuse("repeated_row", None, "an earlier row says the same in every cell".to_owned()));
        }
        let row_id = format!("{}-{}", self.mapping.name, hex(row_key));
        let listing = match self.id.map(|id| cells[id].trim()) {
            None => row_id.clone(),
            Some("") => {
                return Err(refuse("missing_field", self.mapping.id.as_deref(), "the row has no id".to_owned()));
            }
            Some(id) => format!("{}-{id}", self.mapping.name),
        };
        let known = self.seen.contains(&EventKey::of(&listing));
        match step {
            Step::Listed if known && self.story.is_none() => {
                let message = format!("an earlier row lists {listing} already");
                return Err(refuse("repeated_id", self.mapping.id.as_deref(), message));
            }
            Step::Priced | Step::Published | Step::Withdrawn | Step::Sold if !known => {
                let message = format!("no row before this one lists {listing}");
                return Err(refuse("unknown_listing", self.mapping.id.as_deref(), message));
            }
            _ => {}
        }
        let mut fields =
            self.fields(cells).map_err(|(field, message)| refuse("missing_field", Some(&field), message))?;
        let needs_price = matches!(step, Step::Priced | Step::Sold);
        if needs_price && !fields.contains_key("price") {
            return Err(refuse("missing_field", Some("price"), "the row changes the price and has none".to_owned()));
        }
        // Rows of one time keep the file's order.
        let ordinal = self.rows_at.entry(time).or_default();
        let time = time + *ordinal * MICROS_PER_ROW;
        *ordinal += 1;
        let events = loop {
            let mut telling = Telling {
                catalogue: self.catalogue,
                source: &self.mapping.name,
                vehicle_id: format!("{listing}-vehicle"),
                listing_id: listing.clone(),
                row_id: row_id.clone(),
                time,
                events: Vec::new(),
            };
            match step {
                Step::Listed => telling.list(&fields),
                Step::Priced => telling.price(&fields),
                Step::Published => {
                    telling.price(&fields);
                    telling.publish();
                }
                Step::Withdrawn => telling.withdraw(),
                Step::Sold => telling.sell(fields["price"].clone()),
            }
            let events: Vec<String> = telling.events.iter().map(Value::to_string).collect();
            let Some(rejection) =
                events.iter().find_map(|event| parse_event(self.catalogue, event.as_bytes(), None).err())
            else {
                break events;
            };
            // What is not needed is left out, and counted, where the catalogue does not take it.
            let name = rejection.field.as_deref().map(|field| field.trim_start_matches("data.").to_owned());
            let index = name.and_then(|name| self.mapping.fields.iter().position(|field| field.name == name));
            let droppable = index.filter(|index| {
                let field = &self.mapping.fields[*index];
                let needed = field.required || needs_price && field.name == "price";
                !needed && fields.contains_key(&field.name)
            });
            let Some(index) = droppable else {
                return Err(refuse(rejection.code.as_str(), rejection.field.as_deref(), rejection.message));
            };
            fields.remove(&self.mapping.fields[index].name);
            self.unusable.push(index);
        };
        if step == Step::Listed {
            self.seen.insert(EventKey::of(&listing));
            self.report.listings += u64::from(!known);
            for field in self.mapping.fields.iter().filter(|field| !known && !fields.contains_key(&field.name)) {
                *self.report.missing.entry(field.name.clone()).or_default() += 1;
            }
        }
        Ok(events)
    }

    /// What happens in a row, and when.
    fn step(&self, cells: &[String]) -> Result<(Step, i64), (&'static str, String, String)> {
        let Some(((step, time), spec)) = self.story.zip(self.mapping.story.as_ref()) else {
            return Ok((Step::Listed, self.mapping.listed_at.unwrap_or_default()));
        };
        let (step, time) = (cells[step].trim(), cells[time].trim());
        let known = spec.steps.get(step).copied();
        let known = known.ok_or_else(|| {
            ("unknown_step", spec.column.clone(), format!("{} {step:?} is not among the mapping's steps", spec.column))
        })?;
        // A time without a zone is UTC.
        let micros = parse_timestamp(time).or_else(|| parse_timestamp(&format!("{}Z", time.replacen(' ', "T", 1))));
        let micros = micros.ok_or_else(|| {
            ("invalid_time", spec.time.clone(), format!("{} {time:?} is no RFC 3339 time or date", spec.time))
        })?;
        Ok((known, micros))
    }

    /// What a row says; or the required field it does not say, and why.
    fn fields(&mut self, cells: &[String]) -> Result<Map<String, Value>, (String, String)> {
        let mut fields = Map::new();
        for (index, field) in self.mapping.fields.iter().enumerate() {
            let cell = self.cells[index].map_or("", |cell| cells[cell].as_str());
            match self.mapping.read(field, cell) {
                Reading::Value(value) => {
                    fields.insert(field.name.clone(), value);
                }
                Reading::Missing | Reading::Unusable if field.required => {
                    return Err((
                        field.name.clone(),
                        format!("{} is {cell:?}, and is needed", column(self.mapping, field)),
                    ));
                }
                Reading::Missing => {}
                Reading::Unusable => self.unusable.push(index),
            }
        }
        Ok(fields)
    }

    /// Count what was left out of a row that is taken.
    fn count_left_out(&mut self, row: &Row) {
        for &index in &self.unusable {
            let cell = self.cells[index].zip(row.cells.as_ref()).map(|(cell, cells)| cells[cell].as_str());
            let name = self.mapping.fields[index].name.clone();
            let left_out = self.report.left_out.entry(name).or_insert_with(|| LeftOut {
                rows: 0,
                first_line: row.line,
                first_text: cell.unwrap_or_default().to_owned(),
            });
            left_out.rows += 1;
        }
    }
}

fn column<'a>(mapping: &Mapping, field: &'a Field) -> &'a str {
    mapping.column(field).unwrap_or(&field.name)
}

fn hex(key: EventKey) -> String {
    use std::fmt::Write;
    key.as_bytes().iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
