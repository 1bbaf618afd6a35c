//! `/openapi.json`, written from the endpoints.

use axum::response::IntoResponse;
use axum::{Json, response::Response};
use serde_json::{Map, Value, json};

use crate::{
    endpoints::{ENDPOINTS, Endpoint},
    parameters::Parameter,
};

pub(crate) async fn get() -> Response {
    Json(document()).into_response()
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS.iter() {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forecourt",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Vehicle search, SQL and KPIs over one event log",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {"Problem": problem()}},
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let segments = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = segments.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let parameters: Vec<Value> = path.chain(endpoint.parameters.iter().map(parameter)).collect();
    let mut operation = json!({
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": endpoint.answer},
            "default": {
                "description": "What is wrong, where, and what to do",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    });
    if let Some((description, types)) = endpoint.body {
        let content: Map<String, Value> = types.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect();
        operation["requestBody"] = json!({"required": true, "description": description, "content": content});
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let item = json!({"type": parameter.kind});
    let schema = if parameter.repeats { json!({"type": "array", "items": item}) } else { item };
    json!({"name": parameter.name, "in": "query", "description": parameter.meaning, "schema": schema})
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong and what to do"},
            "code": {"type": "string", "description": "Stable; for programs"},
            "parameter": {"type": "string"},
            "field": {"type": "string"},
            "line": {"type": "integer"},
            "column": {"type": "integer"},
            "request_id": {"type": "string", "description": "The request's name in the server's log"},
        },
    })
}
