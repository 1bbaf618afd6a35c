//! `GET /v1/kpis` and `GET /v1/kpis/{name}`.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::Response,
};
use chrono_tz::Tz;
use processors::{
    SeriesKey,
    calendar::{Calendar, Grain},
    kpi_definition::KpiDefinition,
    kpis::DAYS,
};
use serde_json::{Value, json};

use crate::{
    Api,
    consistency::{Freshness, answer},
    parameters::Parameters,
    problem::Problem,
};

pub(crate) async fn list(
    State(api): State<Api>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let board = Freshness::of(&parameters, &headers)?.wait(&api.pipeline.kpis.board).await?;
    let kpis: Vec<Value> = api.pipeline.kpis.definitions.iter().map(describe).collect();
    Ok(answer(board.as_ref(), json!({"kpis": kpis})))
}

fn describe(kpi: &KpiDefinition) -> Value {
    json!({
        "name": kpi.name,
        "title": kpi.title,
        "definition": kpi.definition,
        "values": kpi.values,
        "grains": Grain::ALL,
        "dimensions": [],
    })
}

pub(crate) async fn get(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(name) = name.map_err(|_| Problem::not_found("A KPI's name is text in UTF-8."))?;
    let service = &api.pipeline.kpis;
    if service.definition(&name).is_none() {
        let names: Vec<_> = service.definitions.iter().map(|kpi| kpi.name.as_str()).collect();
        return Err(Problem::not_found(format!("There is no KPI {name:?}. There are {}.", names.join(", "))));
    }
    let calendar = calendar(&parameters)?;
    let bound = |name: &'static str| -> Result<Option<i64>, Problem> {
        let wrong =
            |text: &str| Problem::parameter(name, format!("{name} is a date or an RFC 3339 time, not {text:?}"));
        parameters.text(name)?.map(|text| calendar.parse(text).ok_or_else(|| wrong(text))).transpose()
    };
    let (from, to) = (bound("from")?, bound("to")?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Problem::parameter("from", "from is not before to"));
    }
    let key = SeriesKey { kpi: name.clone(), calendar };
    Freshness::of(&parameters, &headers)?.wait(&service.board).await?;
    let board = service.board_with(&key).await.map_err(|error| Problem::internal(error.as_ref()))?;
    let first = from.and_then(|from| calendar.start(from)).unwrap_or(i64::MIN);
    let rows = board.series(&key).into_iter().flat_map(|series| series.range(first..to.unwrap_or(i64::MAX)));
    let rows: Vec<Value> = rows
        .map(|(start, values)| json!({"bucket": calendar.format(*start), "dimensions": {}, "values": values}))
        .collect();
    let complete_through = board.event_time.and_then(|time| calendar.start(time)).map(|start| calendar.format(start));
    let body = json!({
        "kpi": name,
        "grain": calendar.grain,
        "timezone": calendar.zone.name(),
        "rows": rows,
        "compared": {},
        "complete_through": complete_through,
    });
    Ok(answer(board.as_ref(), body))
}

fn calendar(parameters: &Parameters) -> Result<Calendar, Problem> {
    let grain = match parameters.text("grain")? {
        None => DAYS.grain,
        Some(text) => text.parse().map_err(|()| {
            let names: Vec<_> = Grain::ALL.iter().map(|grain| grain.name()).collect();
            Problem::parameter("grain", format!("grain is one of {}, not {text:?}", names.join(", ")))
        })?,
    };
    let zone = parameters.parsed::<Tz>("timezone", "an IANA time zone such as America/Toronto")?.unwrap_or(DAYS.zone);
    Ok(Calendar { grain, zone })
}
