//! Arrow Flight SQL: ADBC and other clients fetch results as Arrow.
//!
//! It keeps nothing between calls: a handle is the statement itself, with the values it is bound to. Each is planned anew
//! when its rows are fetched, under the limits of every other entry.

mod connections;

use std::{io, sync::Arc, time::Duration};

use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
    decode::FlightRecordBatchStream,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::FlightServiceServer,
    sql::{
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
        CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
        TicketStatementQuery,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use axum::http::HeaderValue;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use lake::{
    ParamValues, QueryLimits, Statement,
    arrow::{
        array::RecordBatch,
        datatypes::{Field, Schema, SchemaRef},
        error::ArrowError,
        ipc::{root_as_message, writer::IpcWriteOptions},
    },
    result_json, session,
};
use prost::Message;
use schemas::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, transport::Server};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::{
    AppState,
    asking::{Answering, AsOf, Asking, DEFAULT_TIME, MAX_TIME, not_past, refused},
    consistency::{Freshness, MIN_POSITION, POSITION},
    operations,
    problem::Problem,
};

/// A client that is gone without a word is found out by pings.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
const CATALOG: &str = "forecourt";
const TABLE_TYPE: &str = "VIEW";
/// Metadata of a call, as the parameters of every other entry.
const AS_OF: &str = "x-forecourt-as-of";
const TIMEOUT: &str = "x-forecourt-timeout-ms";
const WAIT: &str = "x-forecourt-wait-ms";

/// Serve Flight SQL until `stop`, over at most so many connections.
///
/// # Errors
/// When the listener fails.
pub async fn serve_flight(
    listener: TcpListener,
    api: AppState,
    max_connections: usize,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let service = FlightServiceServer::new(Flight { api: api.clone() });
    let position = {
        let api = api.clone();
        move |_: &tonic::codegen::http::Response<tonic::body::Body>| {
            operations::lake_position(&api).map(|position| HeaderValue::from(position.get()))
        }
    };
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .layer(SetResponseHeaderLayer::if_not_present(POSITION, position));
    let served =
        server.add_service(service).serve_with_incoming_shutdown(connections::accept(listener, max_connections), stop);
    served.await.map_err(io::Error::other)
}

#[derive(Clone)]
struct Flight {
    api: AppState,
}

/// A statement, and the values it is bound to.
#[derive(Serialize, Deserialize)]
struct Handle {
    query: String,
    /// Those of `$1`, `$2` and so on, as over HTTP.
    #[serde(default)]
    values: Vec<Value>,
}

impl Handle {
    fn read(bytes: &[u8]) -> Result<Self, Status> {
        serde_json::from_slice(bytes)
            .map_err(|_| Status::invalid_argument("there is no such statement; prepare it again"))
    }

    fn written(&self) -> Result<Bytes, Status> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| internal(&error))
    }

    fn values(&self) -> Result<ParamValues, Status> {
        let unbound =
            |index| Status::invalid_argument(format!("value {index} is a text, a number, a truth value or null"));
        session::parameters(&self.values).map_err(unbound)
    }
}

type Rows = std::pin::Pin<Box<dyn Stream<Item = Result<arrow_flight::FlightData, Status>> + Send>>;

impl Flight {
    /// What a call's metadata asks for.
    fn asking(&self, metadata: &MetadataMap) -> Result<Asking, Status> {
        let text = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        let number = |name: &str| {
            let parsed = text(name).map(|text| text.parse::<u64>());
            parsed.transpose().map_err(|_| Status::invalid_argument(format!("{name} is a whole number")))
        };
        let as_of = AsOf::of(&text(AS_OF).map_or(Value::Null, Value::from));
        let time = number(TIMEOUT)?.map_or(DEFAULT_TIME, Duration::from_millis);
        if time > MAX_TIME {
            return Err(Status::invalid_argument(format!("{TIMEOUT} is at most {}", MAX_TIME.as_millis())));
        }
        Ok(Asking {
            as_of: as_of.ok_or_else(|| status(&not_past()))?,
            freshness: Freshness::new(
                Position::new(number(MIN_POSITION)?.unwrap_or_default()),
                number(WAIT)?.map(Duration::from_millis),
            ),
            limits: QueryLimits { rows: usize::MAX, time },
        })
    }

    fn parse(&self, query: &str) -> Result<Statement, Status> {
        self.api.pipeline.sql.parse(query).map_err(status_of)
    }

    /// Where the rows of a statement are fetched, and what columns they have.
    async fn info(
        &self,
        query: &str,
        ticket: Ticket,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let asking = self.asking(request.metadata())?;
        let prepared =
            self.api.prepare(self.parse(query)?, asking.freshness).await.map_err(|problem| status(&problem))?;
        info_of(&sent(&prepared.schema), ticket, request.into_inner())
    }

    async fn rows(&self, handle: &Handle, metadata: &MetadataMap) -> Result<Response<Rows>, Status> {
        let (asking, statement) = (self.asking(metadata)?, self.parse(&handle.query)?);
        let answering = self.api.answer(statement, handle.values()?, asking).await;
        let Answering { rows, permit } = answering.map_err(|problem| status(&problem))?;
        let (schema, position, reader) = (Arc::clone(&rows.schema), rows.position, rows.reader());
        let batches = stream::try_unfold((rows, permit), async |(mut rows, permit)| match rows.next_batch().await {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some((batch, (rows, permit)))),
            Some(Err(error)) => Err(FlightError::Tonic(Box::new(status_of(error)))),
        });
        let read = move |messages: Rows| -> Rows { Box::pin(messages.inspect(move |_| reader.touch())) };
        let mut response = flight(schema, batches).map(read);
        if let Ok(position) = position.to_string().parse() {
            response.metadata_mut().insert("x-forecourt-position", position);
        }
        Ok(response)
    }
}

/// Rows of a batch that is there.
fn whole(batch: Result<RecordBatch, FlightError>, schema: SchemaRef) -> Response<Rows> {
    flight(schema, stream::iter([batch]))
}

fn flight(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> Response<Rows> {
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(Box::pin(encoded.map_err(|error| match error {
        FlightError::Tonic(status) => *status,
        error => internal(&error),
    })))
}

/// Columns as they are sent: what the encoder makes of them.
fn sent(schema: &SchemaRef) -> SchemaRef {
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(stream::empty());
    encoder.known_schema().unwrap_or_else(|| Arc::clone(schema))
}

fn info_of(schema: &Schema, ticket: Ticket, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(ticket);
    let info = FlightInfo::new().try_with_schema(schema).map_err(|error| internal(&error))?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

/// A ticket that is the command itself.
fn ticket_of(command: &impl ProstMessageExt) -> Ticket {
    Ticket::new(command.as_any().encode_to_vec())
}

fn encoded(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message.map(|IpcMessage(bytes)| bytes).map_err(|error| internal(&error))
}

/// A problem as gRPC tells it, with its code in front.
fn status(problem: &Problem) -> Status {
    let code = match problem.code() {
        "invalid_sql" | "read_only" | "invalid_parameter" => Code::InvalidArgument,
        "too_slow" => Code::DeadlineExceeded,
        "too_large" => Code::ResourceExhausted,
        "busy" | "not_read" | "not_yet" | "log_away" => Code::Unavailable,
        _ => Code::Internal,
    };
    let place = problem.line_and_column().map(|(line, column)| format!(" (line {line}, column {column})"));
    Status::new(code, format!("{}: {}{}", problem.code(), problem.detail(), place.unwrap_or_default()))
}

fn status_of(error: lake::SqlError) -> Status {
    status(&refused(error))
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    status(&Problem::internal(error))
}

/// What the server says of itself.
fn about() -> Result<SqlInfoData, FlightError> {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "Forecourt");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    about.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    about.append(SqlInfo::FlightSqlServerReadOnly, true);
    about.append(SqlInfo::FlightSqlServerSql, true);
    about.append(SqlInfo::FlightSqlServerSubstrait, false);
    about.build()
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    async fn get_flight_info_statement(
        &self,
        command: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let handle = Handle { query: command.query, values: Vec::new() };
        let ticket = ticket_of(&TicketStatementQuery { statement_handle: handle.written()? });
        self.info(&handle.query, ticket, request).await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        self.rows(&Handle::read(&ticket.statement_handle)?, request.metadata()).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        action: ActionCreatePreparedStatementRequest,
        request: Request<arrow_flight::Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let asking = self.asking(request.metadata())?;
        let prepared = self.api.prepare(self.parse(&action.query)?, asking.freshness).await;
        let prepared = prepared.map_err(|problem| status(&problem))?;
        let handle = Handle { query: action.query, values: Vec::new() };
        // A parameter whose type cannot be told takes text.
        let parameters = (1..).zip(prepared.parameters).map(|(number, kind)| {
            Field::new(format!("${number}"), kind.unwrap_or(lake::arrow::datatypes::DataType::Utf8), true)
        });
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.written()?,
            dataset_schema: encoded(&sent(&prepared.schema))?,
            parameter_schema: encoded(&Schema::new(parameters.collect::<Vec<_>>()))?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<arrow_flight::Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Bind a statement: the new handle has the values with it.
    async fn do_put_prepared_statement_query(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut handle = Handle::read(&command.prepared_statement_handle)?;
        // What is compressed says itself how large it is, and that is not to be believed.
        let data = request.into_inner().map_err(|status| FlightError::Tonic(Box::new(status)));
        let data = data.and_then(|data| {
            let message = root_as_message(&data.data_header).ok();
            let compressed = message.and_then(|message| message.header_as_record_batch()?.compression()).is_some()
                || message.is_some_and(|message| message.header_as_dictionary_batch().is_some());
            let refused = || FlightError::DecodeError("send values plain: no compression, no dictionaries".to_owned());
            std::future::ready(if compressed { Err(refused()) } else { Ok(data) })
        });
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
        let unreadable = |error: FlightError| Status::invalid_argument(format!("the values cannot be read: {error}"));
        let (mut values, mut rows) = (Vec::new(), 0);
        while let Some(batch) = batches.try_next().await.map_err(unreadable)? {
            rows += batch.num_rows();
            if rows > 1 {
                return Err(Status::invalid_argument("bind one row of values"));
            }
            if batch.num_rows() == 1 {
                values = batch.columns().iter().map(|column| result_json::cell(column.as_ref(), 0)).collect();
            }
        }
        handle.values = values;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.written()?) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let handle = Handle::read(&command.prepared_statement_handle)?;
        self.info(&handle.query, ticket_of(&command), request).await
    }

    async fn do_get_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        self.rows(&Handle::read(&command.prepared_statement_handle)?, request.metadata()).await
    }

    async fn get_flight_info_catalogs(
        &self,
        command: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.into_builder().schema(), ticket_of(&command), request.into_inner())
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, _: Request<Ticket>) -> Result<Response<Rows>, Status> {
        let mut catalogs = command.into_builder();
        catalogs.append(CATALOG);
        let schema = catalogs.schema();
        Ok(whole(catalogs.build(), schema))
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.clone().into_builder().schema(), ticket_of(&command), request.into_inner())
    }

    async fn do_get_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let mut schemas = command.into_builder();
        let tables = self.api.tables(self.asking(request.metadata())?.freshness).await;
        let tables = tables.map_err(|problem| status(&problem))?;
        let mut last = None;
        for table in tables.iter().filter(|table| last.replace(&table.schema) != Some(&table.schema)) {
            schemas.append(CATALOG, &table.schema);
        }
        let schema = schemas.schema();
        Ok(whole(schemas.build(), schema))
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.clone().into_builder().schema(), ticket_of(&command), request.into_inner())
    }

    async fn do_get_tables(
        &self,
        command: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let mut shown = command.into_builder();
        let tables = self.api.tables(self.asking(request.metadata())?.freshness).await;
        for table in tables.map_err(|problem| status(&problem))? {
            let added = shown.append(CATALOG, &table.schema, &table.name, TABLE_TYPE, &table.arrow());
            added.map_err(|error| internal(&error))?;
        }
        let schema = shown.schema();
        Ok(whole(shown.build(), schema))
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&command.into_builder().schema(), ticket_of(&command), request.into_inner())
    }

    async fn do_get_table_types(
        &self,
        command: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<Response<Rows>, Status> {
        let mut types = command.into_builder();
        types.append(TABLE_TYPE);
        let schema = types.schema();
        Ok(whole(types.build(), schema))
    }

    async fn get_flight_info_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let about = about().map_err(|error| internal(&error))?;
        info_of(&command.clone().into_builder(&about).schema(), ticket_of(&command), request.into_inner())
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _: Request<Ticket>) -> Result<Response<Rows>, Status> {
        let about = about().map_err(|error| internal(&error))?;
        let shown = command.into_builder(&about);
        let schema = shown.schema();
        Ok(whole(shown.build(), schema))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
