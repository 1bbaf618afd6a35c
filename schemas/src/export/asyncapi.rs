//! The log as an AsyncAPI 3.0 document: a channel per context, a message per event.

use serde_json::{Map, Value, json};

use super::json_schema;
use crate::{Catalogue, Context, EventDefinition, examples};

/// The whole system: what producers send, what consumers receive.
#[must_use]
pub fn document(catalogue: &Catalogue) -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for context in catalogue.contexts() {
        let mut own = Map::new();
        for definition in &context.events {
            let name = format!("{}.{}", context.name, definition.name);
            own.insert(definition.name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
            messages.insert(name, message(context, definition));
        }
        channels.insert(context.name.clone(), channel(context, own));
        for (action, verb, summary) in [
            ("send", "publish", "What producers of this context publish"),
            ("receive", "consume", "What consumers of this context read"),
        ] {
            operations.insert(
                format!("{verb}_{}", context.name),
                json!({
                    "action": action,
                    "channel": {"$ref": format!("#/channels/{}", context.name)},
                    "summary": format!("{summary}."),
                }),
            );
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Forecourt",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The events of a used-car marketplace, in one JetStream stream. \
                            A message's id is its event's: sent again, it takes effect once.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "log": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "nats-server 2.12 or newer with JetStream; the stream is EVENTS.",
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}

fn channel(context: &Context, messages: Map<String, Value>) -> Value {
    json!({
        "address": format!("events.{}.{{eventType}}.{{aggregateId}}", context.name),
        "title": context.title,
        "description": context.meaning,
        "messages": messages,
        "parameters": {
            "eventType": {"description": "The event's name, such as the message's."},
            "aggregateId": {
                "description": "The aggregate's id; characters a subject may not hold are replaced by an underscore.",
            },
        },
    })
}

fn message(context: &Context, definition: &EventDefinition) -> Value {
    let schema = json_schema::of_event(context, definition).into_iter().next().map(|current| current.schema);
    let mut schema = schema.unwrap_or_default();
    if let Some(schema) = schema.as_object_mut() {
        // The message has them already, and a document has one dialect.
        for name in ["$schema", "$id", "examples"] {
            schema.remove(name);
        }
    }
    json!({
        "name": format!("{}.{}", context.name, definition.name),
        "title": definition.name,
        "summary": definition.meaning,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": ["Nats-Msg-Id"],
            "properties": {"Nats-Msg-Id": {"type": "string", "description": "The event's id."}},
        },
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": schema},
        "examples": [{"name": "example", "payload": examples::event(context, definition)}],
    })
}
