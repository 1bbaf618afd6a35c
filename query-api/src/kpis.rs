//! `GET /v1/kpis`, `GET /v1/kpis/{name}` and its stream.
//!
//! - `question`: what is asked, from the parameters;
//! - `rows`: the rows of the answer, and what they are compared with;
//! - `stream`: what changes, as it does.

mod question;
mod rows;
pub(crate) mod stream;

pub(crate) use question::Question;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use processors::{
    KpiCache, KpiDefinition, KpiError, SeriesKey,
    kpi_definition::Measures,
    kpis::{DAYS, Totals},
};
use rows::Rows;
use schemas::{Position, time::MICROS_PER_DAY};
use serde_json::{Map, Value, json};

use crate::{
    AppState,
    consistency::{Freshness, MIN_POSITION, POSITION, answer, as_of},
    parameters::{Id, Parameters, id_of},
    problem::Problem,
};

/// A cache may keep an answer this long, and show it a little longer while it asks again.
const CACHED: &str = "public, max-age=1, stale-while-revalidate=10";
/// The request's headers that another answer may follow from.
const VARIES: &str = "accept, x-forecourt-min-position";
/// Longer answers are written anew each time.
const LONGEST_KEPT: usize = 1 << 20;
/// Answers kept as they were written; all go when there are more.
const MOST_WRITTEN: usize = 1_024;
/// KPIs in one answer.
const MOST_NAMES: usize = 64;

/// Answers as they were written, by question and form, of one board each.
#[derive(Clone, Default)]
pub struct WrittenAnswers(Arc<Mutex<HashMap<(u64, Form), Written>>>);

#[derive(Clone)]
struct Written {
    tag: u64,
    position: Position,
    body: Bytes,
}

/// In what form an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Json,
    /// A list of flat objects, as spreadsheets import it.
    Records,
    Csv,
}

impl Form {
    fn wanted(headers: &HeaderMap, parameters: &Parameters) -> Result<Self, Problem> {
        match parameters.text("format")? {
            Some("json") => return Ok(Self::Json),
            Some("records") => return Ok(Self::Records),
            Some("csv") => return Ok(Self::Csv),
            Some(other) => {
                return Err(Problem::parameter("format", format!("format is json, records or csv, not {other:?}")));
            }
            None => {}
        }
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        Ok(if accept.split(',').any(|kind| kind.trim().starts_with("text/csv")) { Self::Csv } else { Self::Json })
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Records => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

pub(crate) async fn list(
    State(api): State<AppState>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let board = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.kpis.cache).await?;
    let Some(names) = parameters.text("names")? else {
        let kpis: Vec<Value> = api.pipeline.kpis.definitions.iter().map(KpiDefinition::description).collect();
        return Ok(answer(board.as_ref(), json!({"kpis": kpis})));
    };
    let names: Vec<&str> = names.split(',').collect();
    if names.len() > MOST_NAMES {
        return Err(Problem::parameter("names", format!("names has {} KPIs, and may have {MOST_NAMES}", names.len())));
    }
    let parameters = parameters.clone().without(&["names"]);
    let mut questions = Vec::new();
    for name in names {
        let kpi = definition(&api, name)?;
        questions.push(Question::of(&kpi, &parameters).map(|question| (kpi, question))?);
    }
    // A board that has them all is asked, so that all are as of one position.
    let mut board = board;
    for (_, question) in &questions {
        board = cache_with(&api, &question.key).await?;
    }
    let mut hasher = DefaultHasher::new();
    for (kpi, question) in &questions {
        tag(&api, &board, kpi, question, Form::Json).hash(&mut hasher);
    }
    let tag = hasher.finish();
    if let Some(same) = same(&headers, tag, board.position) {
        return Ok(same);
    }
    let mut kpis = Vec::new();
    for (kpi, question) in &questions {
        kpis.push(body(&api, kpi, question, &board).await?);
    }
    let mut response = answer(board.as_ref(), json!({"kpis": kpis}));
    cacheable(&mut response, tag, &parameters, &headers);
    Ok(response)
}

fn definition(api: &AppState, name: &str) -> Result<KpiDefinition, Problem> {
    let service = &api.pipeline.kpis;
    let unknown = || {
        let names: Vec<_> = service.definitions.iter().map(|kpi| kpi.name.as_str()).collect();
        Problem::not_found(format!("There is no KPI {name:?}. There are {}.", names.join(", ")))
    };
    service.definition(name).cloned().ok_or_else(unknown)
}

pub(crate) async fn cache_with(api: &AppState, key: &SeriesKey) -> Result<Arc<KpiCache>, Problem> {
    api.pipeline.kpis.cache_with(key).await.map_err(|error| match error.as_ref() {
        KpiError::TooSlow { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "too_slow", "It takes too long", format!("{error}."))
        }
        other => Problem::internal(other),
    })
}

/// The latest event time that says how far answers are complete: a clock that is wrong by years says nothing.
pub(crate) fn latest(api: &AppState, board: &KpiCache) -> Option<i64> {
    board.event_time.map(|time| time.min((api.now)() + MICROS_PER_DAY))
}

/// The KPI of an address, and what is asked of it.
pub(crate) fn parse_kpi_request(
    api: &AppState,
    name: Id,
    parameters: &Parameters,
) -> Result<(KpiDefinition, Question), Problem> {
    let kpi = definition(api, &id_of(name)?)?;
    let question = Question::of(&kpi, parameters)?;
    Ok((kpi, question))
}

pub(crate) async fn get(
    State(api): State<AppState>,
    name: Id,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (kpi, question) = parse_kpi_request(&api, name, &parameters)?;
    let form = Form::wanted(&headers, &parameters)?;
    Freshness::of(&parameters, &headers)?.wait(&api.pipeline.kpis.cache).await?;
    let board = cache_with(&api, &question.key).await?;
    let tag = tag(&api, &board, &kpi, &question, form);
    if let Some(same) = same(&headers, tag, board.position) {
        return Ok(same);
    }
    let known = api.written_kpis.get(question.fingerprint, form, tag, board.position);
    let text = match known {
        Some(text) => text,
        None => {
            let mut body = body(&api, &kpi, &question, &board).await?;
            body["as_of"] = as_of(board.as_ref());
            let text = match form {
                Form::Json => body.to_string(),
                Form::Records => records(&flat(&kpi, &question, &body)).to_string(),
                Form::Csv => csv(&flat(&kpi, &question, &body)),
            };
            let written = Written { tag, position: board.position, body: Bytes::from(text) };
            api.written_kpis.keep(question.fingerprint, form, written)
        }
    };
    let mut response = ([(header::CONTENT_TYPE, form.media_type())], text).into_response();
    response.headers_mut().insert(POSITION, HeaderValue::from(board.position.get()));
    cacheable(&mut response, tag, &parameters, &headers);
    Ok(response)
}

impl WrittenAnswers {
    fn get(&self, question: u64, form: Form, tag: u64, position: Position) -> Option<Bytes> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = kept.get(&(question, form))?;
        (written.tag == tag && written.position == position).then(|| written.body.clone())
    }

    fn keep(&self, question: u64, form: Form, written: Written) -> Bytes {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_WRITTEN {
            kept.clear();
        }
        let body = written.body.clone();
        if body.len() <= LONGEST_KEPT {
            kept.insert((question, form), written);
        }
        body
    }
}

/// What tells an answer from another: the question, the position by which its series changed, and how far it is complete.
fn tag(api: &AppState, board: &KpiCache, kpi: &KpiDefinition, question: &Question, form: Form) -> u64 {
    let mut hasher = DefaultHasher::new();
    let through = latest(api, board).and_then(|time| question.key.calendar.start(time));
    // Another definition, or another setting of it, is another answer.
    let frozen = board.frozen(&question.key).map(|(days, _)| days.len());
    let settings: Vec<_> = kpi.settings.iter().map(|setting| setting.value.map(f64::to_bits)).collect();
    (&kpi.sql, settings, question.fingerprint, form, board.changed(&question.key).get(), through, frozen)
        .hash(&mut hasher);
    hasher.finish()
}

/// 304, when whoever asks has this answer.
fn same(headers: &HeaderMap, tag: u64, position: Position) -> Option<Response> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let ours = entity_tag(tag);
    if !known.split(',').any(|known| known.trim() == ours || known.trim() == "*") {
        return None;
    }
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&ours).ok()?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHED));
    headers.insert(header::VARY, HeaderValue::from_static(VARIES));
    headers.insert(POSITION, HeaderValue::from(position.get()));
    Some(response)
}

fn entity_tag(tag: u64) -> String {
    format!("W/\"{tag:016x}\"")
}

fn cacheable(response: &mut Response, tag: u64, parameters: &Parameters, asked: &HeaderMap) {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&entity_tag(tag)) {
        headers.insert(header::ETAG, tag);
    }
    // Who insists on a position must not be given what somebody else was.
    let cached = if parameters.has("min_position") || asked.contains_key(MIN_POSITION) { "no-cache" } else { CACHED };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cached));
    headers.insert(header::VARY, HeaderValue::from_static(VARIES));
}

/// One KPI's answer, without what it reflects.
pub(crate) async fn body(
    api: &AppState,
    kpi: &KpiDefinition,
    question: &Question,
    board: &KpiCache,
) -> Result<Value, Problem> {
    let empty = Default::default();
    let series = board.series(&question.key).unwrap_or(&empty);
    let calendar = question.key.calendar;
    let totals_of = |by: bool, from: i64, to: i64| {
        let key =
            SeriesKey { by: if by { question.key.by.clone() } else { Vec::new() }, window: 1, ..question.key.clone() };
        async move {
            let totals = api.pipeline.kpis.totals(board, &question.key, &key, from, to).await;
            totals.map_err(|error| Problem::internal(&error))
        }
    };
    let ranked = match question.top {
        Some(_) => {
            // What there is came at any time before.
            let from = if kpi.measures == Measures::Level { None } else { question.from };
            Some(totals_of(true, from.unwrap_or(i64::MIN), question.to.unwrap_or(i64::MAX)).await?)
        }
        None => None,
    };
    let latest = latest(api, board);
    let frozen = board.frozen(&question.key);
    let rows = Rows::of(kpi, question, latest, series, ranked.as_deref(), frozen)?;
    let mut compared = Map::new();
    for compare in &question.compare {
        let mut side = json!({"rows": rows.compared(*compare)});
        if question.totals
            && kpi.measures == Measures::Flow
            && let (Some(first), Some((from, to))) = (rows.first(), rows.range_before(*compare))
        {
            let (now, before) = (totals_of(false, first, rows.end).await?, totals_of(false, from, to).await?);
            if let (Some(now), Some(before)) = (now.values().next(), before.values().next()) {
                let (difference, percent) = rows.difference(now, before);
                side["totals"] = json!({"from": calendar.format(from), "to": calendar.format(to), "values": before, "difference": difference, "percent": percent});
            }
        }
        compared.insert(compare.name().to_owned(), side);
    }
    let mut body = json!({
        "kpi": kpi.name,
        "title": kpi.title,
        "grain": calendar.grain,
        "timezone": calendar.zone.name(),
        "rows": rows.rows(),
        "compared": compared,
        "complete_through": latest.and_then(|time| calendar.start(time)).map(|start| calendar.format(start)),
    });
    if let Some((days, _)) = frozen {
        let through = days.last().and_then(|last| DAYS.next(*last));
        body["frozen_through"] = json!(through.map(|through| calendar.format(through)));
    }
    if question.totals
        && let Some(first) = rows.first()
    {
        let (all, each) = match kpi.measures {
            Measures::Level => (Arc::new(rows.level_totals()), None),
            Measures::Flow => {
                let each =
                    if question.key.by.is_empty() { None } else { Some(totals_of(true, first, rows.end).await?) };
                (totals_of(false, first, rows.end).await?, each)
            }
        };
        body["totals"] = totals_told(question, kpi, &all, each.as_deref());
    }
    Ok(body)
}

fn totals_told(question: &Question, kpi: &KpiDefinition, all: &Totals, each: Option<&Totals>) -> Value {
    let of_groups = each.or((kpi.measures == Measures::Level && !question.key.by.is_empty()).then_some(all));
    let named = |dimensions: &Vec<Option<String>>| -> Map<String, Value> {
        question.key.by.iter().cloned().zip(dimensions.iter().map(|value| json!(value))).collect()
    };
    let rows = of_groups.map(|groups| {
        let rows = groups.iter().map(|(dimensions, values)| json!({"dimensions": named(dimensions), "values": values}));
        rows.collect::<Vec<_>>()
    });
    let mut told = json!({"values": all.get(&Vec::new()).cloned().or_else(|| rows::sum_of(kpi, all.values()))});
    if let Some(rows) = rows {
        told["rows"] = json!(rows);
    }
    told
}

/// Rows without anything in them but values, by column.
struct Flat<'a> {
    columns: Vec<String>,
    rows: Vec<Vec<&'a Value>>,
}

/// The rows flat: bucket, dimensions, values, and of each comparison what it was and the change in percent.
fn flat<'a>(kpi: &KpiDefinition, question: &Question, body: &'a Value) -> Flat<'a> {
    let mut columns = vec!["bucket".to_owned()];
    columns.extend(question.key.by.iter().cloned());
    columns.extend(kpi.values.iter().map(|value| value.name.clone()));
    for compare in &question.compare {
        for value in &kpi.values {
            columns.extend([
                format!("{}_{}", compare.name(), value.name),
                format!("{}_{}_percent", compare.name(), value.name),
            ]);
        }
    }
    let told = body["rows"].as_array().into_iter().flatten();
    let rows = told.enumerate().map(|(at, row)| {
        let mut fields = vec![&row["bucket"]];
        fields.extend(question.key.by.iter().map(|name| &row["dimensions"][name]));
        fields.extend(kpi.values.iter().map(|value| &row["values"][&value.name]));
        for compare in &question.compare {
            let other = &body["compared"][compare.name()]["rows"][at];
            for value in &kpi.values {
                fields.extend([&other["values"][&value.name], &other["percent"][&value.name]]);
            }
        }
        fields
    });
    Flat { columns, rows: rows.collect() }
}

fn records(flat: &Flat<'_>) -> Value {
    let record = |row: &Vec<&Value>| -> Map<String, Value> {
        flat.columns.iter().cloned().zip(row.iter().copied().cloned()).collect()
    };
    json!(flat.rows.iter().map(record).collect::<Vec<_>>())
}

fn csv(flat: &Flat<'_>) -> String {
    let field = |value: &&Value| match value {
        Value::Null => String::new(),
        // A spreadsheet would take it for a formula.
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t']) => {
            format!("\"'{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut lines = vec![flat.columns.join(",")];
    lines.extend(flat.rows.iter().map(|row| row.iter().map(field).collect::<Vec<_>>().join(",")));
    lines.join("\r\n") + "\r\n"
}
