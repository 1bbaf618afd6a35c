//! The Postgres wire: psql, drivers and BI tools ask as they ask Postgres.
//!
//! - [`command`]: what a statement wants;
//! - [`connection`]: settings, cursors and the transaction of one connection;
//! - [`error`]: Postgres's codes for what went wrong.
//!
//! A statement is planned anew each time it runs, at the cut its connection asks for, under the limits of every other
//! entry. Rows are sent as they come: memory is bounded however many there are.

mod command;
mod connection;
mod error;

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    io,
    ops::{ControlFlow, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_pg::datatypes::{arrow_schema_to_pg_fields, df::deserialize_parameters, encode_recordbatch, into_pg_type};
use async_trait::async_trait;
use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use ingest::bodies::share;
use lake::{
    ParamValues, Prepared, Statement,
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Schema},
    },
    session,
    sqlparser::ast,
};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DEFAULT_NAME, METADATA_DATABASE, PgWireConnectionState, PgWireServerHandlers,
        PidSecretKeyGenerator, RandomPidSecretKeyGenerator, Type,
        auth::{
            DefaultServerParameterProvider, ServerParameterProvider, StartupHandler, finish_authentication,
            protocol_negotiation, save_startup_parameters_to_metadata,
        },
        cancel::CancelHandler,
        portal::{Format, Portal, PortalExecutionState},
        query::{
            ExtendedQueryHandler, SimpleQueryHandler, send_describe_response, send_execution_response,
            send_partial_query_response, send_query_response, send_ready_for_query,
        },
        results::{DataRowEncoder, DescribePortalResponse, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
        stmt::QueryParser,
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage, PgWireFrontendMessage,
        cancel::CancelRequest,
        data::DataRow,
        extendedquery::{Bind, BindComplete, Describe, Execute, TARGET_TYPE_BYTE_PORTAL},
        response::{EmptyQueryResponse, TransactionStatus},
        simplequery::Query,
    },
    tokio::process_socket,
};
use schemas::Position;
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    Api,
    asking::{Answering, refused},
    client_places::{ClientPlace, ClientPlaces},
    consistency::Freshness,
    problem::Problem,
};
use command::Command;
use connection::{Connection, Connections, SERVER_VERSION};
use error::Refusal;

/// Connections at once.
const MAX_CONNECTIONS: usize = 100;
/// A connection that has said nothing for so long gives its place to another that needs one.
const YIELDS_AFTER: Duration = Duration::from_millis(500);
/// How long to wait where the system gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
const DATABASE: &str = "forecourt";

/// Serve the Postgres wire until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_postgres(listener: TcpListener, api: Api, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
    let service = Service {
        statements: Arc::new(Statements { api }),
        places: ClientPlaces::new(MAX_CONNECTIONS),
        keys: Arc::default(),
        connections: Arc::default(),
        has_begun: Arc::default(),
    };
    let mut connections = JoinSet::new();
    let mut beginning: VecDeque<Beginning> = VecDeque::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => {
                let (socket, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Too many open files, for example: it passes.
                        tracing::warn!(%error, "cannot take a Postgres connection");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                beginning.retain(|it| !it.has_begun.load(Ordering::Relaxed) && !it.task.is_finished());
                if connections.len() >= 2 * MAX_CONNECTIONS {
                    // One that has said nothing yet gives its place.
                    match beginning.front() {
                        Some(silent) if silent.since.elapsed() >= YIELDS_AFTER => {
                            silent.task.abort();
                            beginning.pop_front();
                        }
                        _ => {
                            tracing::warn!(%address, "too many Postgres connections; one is closed unheard");
                            continue;
                        }
                    }
                }
                let has_begun = Arc::new(AtomicBool::new(false));
                let handlers = Handlers(Arc::new(Service { has_begun: Arc::clone(&has_begun), ..service.clone() }));
                let task = connections.spawn(async move {
                    if let Err(error) = process_socket(socket, None, handlers).await {
                        tracing::debug!(%error, %address, "a Postgres connection broke off");
                    }
                });
                beginning.push_back(Beginning { since: Instant::now(), has_begun, task });
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended
                    && !error.is_cancelled()
                {
                    tracing::error!(%error, "a Postgres connection failed");
                }
            }
        }
    }
}

/// A connection whose client has not said yet what it wants.
struct Beginning {
    since: Instant,
    has_begun: Arc<AtomicBool>,
    task: AbortHandle,
}

/// What serves one connection; all but the last is shared.
#[derive(Clone)]
struct Service {
    statements: Arc<Statements>,
    places: Arc<ClientPlaces>,
    keys: Arc<RandomPidSecretKeyGenerator>,
    connections: Arc<Connections>,
    /// Whether the client has said what it wants.
    has_begun: Arc<AtomicBool>,
}

struct Handlers(Arc<Service>);

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.0)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.0)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.0)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.0)
    }
}

#[async_trait]
impl CancelHandler for Service {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.connections.cancel(request.pid, &request.secret_key);
    }
}

#[async_trait]
impl StartupHandler for Service {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let PgWireFrontendMessage::Startup(startup) = message else { return Ok(()) };
        protocol_negotiation(client, &startup).await?;
        save_startup_parameters_to_metadata(client, &startup);
        let database = client.metadata().get(METADATA_DATABASE).map_or(DATABASE, String::as_str);
        if database != DATABASE {
            let message = format!("database \"{database}\" does not exist; it is called {DATABASE}");
            return Err(Refusal::fatal("3D000", message).into());
        }
        let Some(place) = self.places.take(client.socket_addr().ip()) else {
            let message = format!(
                "{MAX_CONNECTIONS} connections are open, or {} from this address; close one, or come again",
                share(MAX_CONNECTIONS)
            );
            return Err(Refusal::fatal("53300", message).into());
        };
        self.connect(client, place)?;
        self.has_begun.store(true, Ordering::Relaxed);
        finish_authentication(client, &Parameters).await
    }
}

impl Service {
    fn connect(&self, client: &mut (impl ClientInfo + Send), place: ClientPlace) -> Result<(), Refusal> {
        let (pid, key) = self.keys.generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let connection = Arc::new(Connection::new((pid, key), place));
        // `options=-c name=value`, as PGOPTIONS has it.
        let options = client.metadata().get("options").cloned().unwrap_or_default();
        for option in options.split("-c").filter(|option| !option.trim().is_empty()) {
            let (name, value) = option.trim().trim_start_matches("--").split_once('=').unwrap_or((option, ""));
            let set = connection.set(&name.to_lowercase(), value.trim());
            set.map_err(|refusal| Refusal::fatal("22023", refusal.message()))?;
        }
        self.connections.add(&connection);
        client.session_extensions().insert(connection);
        Ok(())
    }
}

/// What a client is told of us when it connects.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let mut parameters = DefaultServerParameterProvider::default();
        SERVER_VERSION.clone_into(&mut parameters.server_version);
        "UTC".clone_into(&mut parameters.time_zone);
        "lake".clone_into(&mut parameters.search_path);
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        parameters.server_parameters(client)
    }
}

/// A statement that was parsed, to be run as often as it is bound.
#[derive(Clone)]
pub(crate) struct Parsed {
    text: String,
    command: Command,
    /// Of one that asks for rows of tables.
    prepared: Option<Prepared>,
    /// Of one that takes rows from a cursor.
    fields: Option<Arc<Vec<FieldInfo>>>,
}

/// Reads statements.
pub(crate) struct Statements {
    api: Api,
}

/// What a statement is answered with.
enum Reply {
    Rows(QueryResponse),
    Done(&'static str),
    /// Done, and a transaction is open from here on, or no more.
    Transaction(&'static str, TransactionStatus),
}

impl Statements {
    fn parse(&self, text: &str) -> Result<Vec<ast::Statement>, Refusal> {
        let parsed = self.api.pipeline.sql.parse_postgres(text);
        parsed.map_err(|error| Refusal::of(&refused(error), text))
    }

    /// The same refusal with its place: the words that Postgres's clients may use are rewritten for the engine, which
    /// loses where they stood, so the statement is looked at again as it was written.
    async fn placed(&self, refusal: Refusal, text: &str) -> Refusal {
        if refusal.is_placed() {
            return refusal;
        }
        let Ok(statement) = self.api.pipeline.sql.parse(text) else { return refusal };
        let again = self.api.prepare(statement, Freshness::new(Position::START, None)).await;
        match again {
            Ok(_) => refusal,
            Err(problem) => refusal.placed_as(&Refusal::of(&problem, text)),
        }
    }
}

impl Service {
    /// Do what a statement wants. `values` are those of its parameters.
    async fn run(
        &self,
        connection: &Arc<Connection>,
        status: TransactionStatus,
        parsed: &Parsed,
        values: ParamValues,
        format: &Format,
    ) -> Result<Reply, Refusal> {
        let ends = matches!(parsed.command, Command::Commit | Command::Rollback | Command::RollbackTo);
        if matches!(status, TransactionStatus::Error) && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Refusal::new("25P02", message));
        }
        match &parsed.command {
            Command::Ask(statement) => {
                let statement = Statement::Statement(statement.clone());
                let rows = self.ask(connection, statement, &parsed.text, values, format).await?;
                Ok(Reply::Rows(rows))
            }
            Command::Show(name) if name == "all" => {
                Err(Refusal::new("0A000", "name the setting: SHOW statement_timeout"))
            }
            Command::Show(name) => Ok(Reply::Rows(one_value(name, &connection.show(name)?)?)),
            Command::Set { name, value } => connection.set(name, value).map(|()| Reply::Done("SET")),
            Command::Reset(name) => {
                connection.reset(name.as_deref())?;
                Ok(Reply::Done("RESET"))
            }
            Command::Begin { one_position } => {
                connection.isolate(*one_position);
                Ok(Reply::Transaction("BEGIN", TransactionStatus::Transaction))
            }
            Command::Isolate { one_position } => {
                connection.isolate(*one_position && matches!(status, TransactionStatus::Transaction));
                Ok(Reply::Done("SET"))
            }
            Command::Commit | Command::Rollback => {
                connection.end_transaction().await;
                let failed = matches!(status, TransactionStatus::Error);
                let commits = matches!(parsed.command, Command::Commit) && !failed;
                Ok(Reply::Transaction(if commits { "COMMIT" } else { "ROLLBACK" }, TransactionStatus::Idle))
            }
            Command::RollbackTo if matches!(status, TransactionStatus::Idle) => {
                Err(Refusal::new("25P01", "there is no transaction"))
            }
            Command::RollbackTo => Ok(Reply::Transaction("ROLLBACK", TransactionStatus::Transaction)),
            Command::Declare { cursor, query } => {
                if matches!(status, TransactionStatus::Idle) {
                    return Err(Refusal::new("25P01", "a cursor lives in a transaction: BEGIN first"));
                }
                let statement = Statement::Statement(Box::new(ast::Statement::Query(query.clone())));
                let rows = self.ask(connection, statement, &parsed.text, values, &Format::UnifiedText).await?;
                connection.open_cursor(cursor, rows).await?;
                Ok(Reply::Done("DECLARE CURSOR"))
            }
            Command::Fetch { cursor, rows } => {
                let Some(open) = connection.cursors.lock().await.get(cursor).cloned() else {
                    return Err(Refusal::new("34000", format!("there is no cursor {cursor}")));
                };
                let (open, cancel) = (open.lock_owned().await, connection.begin_statement());
                let (fields, most) = (open.row_schema(), rows.unwrap_or(usize::MAX));
                let fetched = stream::unfold((open, most, cancel), async |(mut open, left, cancel)| {
                    if left == 0 {
                        return None;
                    }
                    let row = tokio::select! {
                        () = cancel.cancelled() => Err(Refusal::cancelled().into()),
                        row = open.data_rows().next() => row?,
                    };
                    let left = if row.is_ok() { left - 1 } else { 0 };
                    Some((row, (open, left, cancel)))
                });
                let mut response = QueryResponse::new(fields, fetched);
                response.set_command_tag("FETCH");
                Ok(Reply::Rows(response))
            }
            Command::Close(None) => {
                connection.cursors.lock().await.clear();
                Ok(Reply::Done("CLOSE CURSOR ALL"))
            }
            Command::Close(Some(cursor)) => match connection.cursors.lock().await.remove(cursor) {
                Some(_) => Ok(Reply::Done("CLOSE CURSOR")),
                None => Err(Refusal::new("34000", format!("there is no cursor {cursor}"))),
            },
            Command::Nothing(done) => Ok(Reply::Done(done)),
        }
    }

    async fn ask(
        &self,
        connection: &Arc<Connection>,
        statement: Statement,
        text: &str,
        values: ParamValues,
        format: &Format,
    ) -> Result<QueryResponse, Refusal> {
        let (asking, cancel, names) = (connection.asking()?, connection.begin_statement(), column_names(&statement));
        let answering = tokio::select! {
            () = cancel.cancelled() => return Err(Refusal::cancelled()),
            answering = self.statements.api.answer(statement, values, asking) => answering,
        };
        let answering = match answering {
            Ok(answering) => answering,
            Err(problem) => return Err(self.statements.placed(Refusal::of(&problem, text), text).await),
        };
        connection.answered_at(answering.rows.position);
        let fields = Arc::new(fields(&named(&answering.rows.schema, names.as_deref()), format)?);
        let cancelled = async move { cancel.cancelled().await };
        Ok(QueryResponse::new(Arc::clone(&fields), rows(answering, fields, cancelled)))
    }
}

/// The parameters that something is looked for in, as `= ANY($1)` does, are lists: of text, unless more is known.
fn with_lists(mut prepared: Prepared, text: &str, statement: &ast::Statement) -> Prepared {
    // Some of what clients ask of the catalogue is left out, and its parameters with it.
    prepared.takes(session::parameters_in(text));
    let _ = ast::visit_expressions(statement, |expression| {
        if let ast::Expr::Function(function) = expression
            && matches!(function.name.to_string().as_str(), "array_contains" | "array_has")
            && let ast::FunctionArguments::List(arguments) = &function.args
            && let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(list)))) =
                arguments.args.first()
            && let ast::Value::Placeholder(name) = &list.value
            && let Some(number) =
                name.trim_start_matches('$').parse::<usize>().ok().and_then(|number| number.checked_sub(1))
            && let Some(kind @ None) = prepared.parameters.get_mut(number)
        {
            *kind = Some(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))));
        }
        ControlFlow::<()>::Continue(())
    });
    prepared
}

/// What Postgres calls the columns of a query that give themselves no names, where the query lists them.
fn column_names(statement: &Statement) -> Option<Vec<Option<String>>> {
    let Statement::Statement(statement) = statement else { return None };
    let ast::Statement::Query(query) = &**statement else { return None };
    let ast::SetExpr::Select(select) = &*query.body else { return None };
    let name = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(expression) => {
            Some(Some(column_name(expression).unwrap_or_else(|| "?column?".to_owned())))
        }
        ast::SelectItem::ExprWithAlias { .. } => Some(None),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}

fn column_name(expression: &ast::Expr) -> Option<String> {
    match expression {
        ast::Expr::Identifier(name) => Some(name.value.clone()),
        ast::Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
        ast::Expr::Function(function) => Some(function.name.0.last()?.as_ident()?.value.to_lowercase()),
        ast::Expr::Cast { expr, data_type, .. } => {
            Some(column_name(expr).unwrap_or_else(|| data_type.to_string().to_lowercase()))
        }
        ast::Expr::Nested(inner) => column_name(inner),
        ast::Expr::Case { .. } => Some("case".to_owned()),
        ast::Expr::Extract { .. } => Some("extract".to_owned()),
        _ => None,
    }
}

/// A result's columns under these names, where there are any.
fn named(schema: &Schema, names: Option<&[Option<String>]>) -> Schema {
    let Some(names) = names.filter(|names| names.len() == schema.fields().len()) else { return schema.clone() };
    let field = |(field, name): (&Arc<Field>, &Option<String>)| match name {
        Some(name) => field.as_ref().clone().with_name(name),
        None => field.as_ref().clone(),
    };
    Schema::new(schema.fields().iter().zip(names).map(field).collect::<Vec<_>>())
}

/// Columns as Postgres's clients are told of them.
fn fields(schema: &Schema, format: &Format) -> Result<Vec<FieldInfo>, Refusal> {
    arrow_schema_to_pg_fields(schema, format, None)
        .map_err(|error| Refusal::new("0A000", format!("a column cannot be sent: {error}; cast it")))
}

/// Rows as they come, until there are no more or somebody cancels them.
fn rows(
    answering: Answering,
    fields: Arc<Vec<FieldInfo>>,
    cancelled: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    let Answering { rows, permit } = answering;
    let reader = rows.reader();
    let batches = stream::unfold(Some((rows, permit, Box::pin(cancelled))), move |going| {
        let fields = Arc::clone(&fields);
        async move {
            let (mut rows, permit, mut cancelled) = going?;
            let batch = tokio::select! {
                () = &mut cancelled => return Some((vec![Err(Refusal::cancelled().into())], None)),
                batch = rows.next_batch() => batch?,
            };
            Some(match batch {
                Ok(batch) => match encoded(fields, batch) {
                    (rows_of_batch, true) => (rows_of_batch, Some((rows, permit, cancelled))),
                    (rows_of_batch, false) => (rows_of_batch, None),
                },
                Err(error) => (vec![Err(Refusal::of(&refused(error), "").into())], None),
            })
        }
    });
    batches.map(stream::iter).flatten().inspect(move |_| reader.touch())
}

/// A batch's rows, up to the first that cannot be sent; whether that is all of them.
fn encoded(fields: Arc<Vec<FieldInfo>>, batch: RecordBatch) -> (Vec<PgWireResult<DataRow>>, bool) {
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in encode_recordbatch(fields, batch) {
        match row {
            Ok(row) => rows.push(Ok(row)),
            // The encoder would tell of the same row for ever.
            Err(error) => {
                rows.push(
                    Err(Refusal::new("22000", format!("a row cannot be sent: {error}; cast its columns")).into()),
                );
                return (rows, false);
            }
        }
    }
    (rows, true)
}

/// A row of one text.
fn one_value(name: &str, value: &str) -> Result<QueryResponse, Refusal> {
    let fields = Arc::new(vec![text_field(name)]);
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    encoder.encode_field(&Some(value)).map_err(|error| refused_by(&error))?;
    let row = encoder.take_row();
    Ok(QueryResponse::new(fields, stream::iter([Ok(row)])))
}

/// Our own fault: what it is goes to the log.
fn refused_by(error: &PgWireError) -> Refusal {
    Refusal::of(&Problem::internal(error), "")
}

fn text_field(name: &str) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text)
}

#[async_trait]
impl SimpleQueryHandler for Service {
    /// Statements one after the other, each answered before the next begins.
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let connection = Connection::of(client)?;
        let statements = self.statements.parse(&query.query)?;
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        let alone = statements.len() == 1;
        for statement in statements {
            let text = if alone { query.query.clone() } else { statement.to_string() };
            let parsed = Parsed { text, command: Command::of(statement)?, prepared: None, fields: None };
            let none = session::parameters(&[]).map_err(|_| Refusal::new("XX000", "no parameters"))?;
            let status = client.transaction_status();
            match self.run(&connection, status, &parsed, none, &Format::UnifiedText).await? {
                Reply::Rows(rows) => send_query_response(client, rows, true).await?,
                Reply::Done(done) => send_execution_response(client, Tag::new(done)).await?,
                Reply::Transaction(done, status) => {
                    send_execution_response(client, Tag::new(done)).await?;
                    client.set_transaction_status(status);
                    if matches!(status, TransactionStatus::Idle) {
                        client.portal_store().clear_portals();
                    }
                }
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        send_ready_for_query(client, client.transaction_status()).await
    }

    async fn do_query<C>(&self, _: &mut C, _: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(Refusal::new("XX000", "statements are answered one by one").into())
    }
}

#[async_trait]
impl ExtendedQueryHandler for Service {
    type Statement = Parsed;
    type QueryParser = Statements;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        Arc::clone(&self.statements)
    }

    /// Refuse formats that are for other columns or parameters than there are.
    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let (given, formats) = (message.parameters.len(), message.parameter_format_codes.len());
        match client.portal_store().get_statement(name) {
            None => return Err(PgWireError::StatementNotFound(name.to_owned())),
            Some(Entry::Empty) => client.portal_store().put_empty_portal(portal),
            Some(Entry::Value(statement)) => {
                let parsed = &statement.statement;
                let wanted = parsed.parameters().len();
                let columns = parsed.columns(&Format::UnifiedText)?.len();
                let shown = message.result_column_format_codes.len();
                if given != wanted || !(formats <= 1 || formats == given) || !(shown <= 1 || shown == columns) {
                    let message = format!(
                        "the statement has {wanted} parameters and {columns} columns, and is bound with {given} \
                         parameters, {formats} of their formats and {shown} formats of columns"
                    );
                    return Err(Refusal::new("08P01", message).into());
                }
                if matches!(parsed.command, Command::Fetch { .. }) && message.result_column_format_codes.contains(&1) {
                    return Err(Refusal::new("0A000", "a cursor gives its rows as text; ask for them in text").into());
                }
                let bound = Portal::try_new(&message, statement)?;
                client.portal_store().put_portal(Arc::new(bound));
            }
        }
        client.send(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    /// A cursor is described as the portal it is in Postgres.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let (TARGET_TYPE_BYTE_PORTAL, Some(name)) = (message.target_type, &message.name) {
            let connection = Connection::of(client)?;
            let fields = connection.cursor_fields(name).await;
            if let Some(fields) = fields {
                return send_describe_response(client, &DescribePortalResponse::new(fields.to_vec())).await;
            }
        }
        self._on_describe(client, message).await
    }

    /// Rows go out as they come, also where a client wants them all.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
                return Ok(());
            }
            None => return Err(PgWireError::PortalNotFound(name.to_owned())),
        };
        client.set_state(PgWireConnectionState::QueryInProgress);
        let state = portal.state();
        let mut state = state.lock().await;
        if matches!(*state, PortalExecutionState::Initial) {
            let connection = Connection::of(client)?;
            let parsed = &portal.statement.statement;
            let values = parsed.values(&portal)?;
            let format = &portal.result_column_format;
            match self.run(&connection, client.transaction_status(), parsed, values, format).await? {
                Reply::Rows(rows) => *state = PortalExecutionState::Suspended(rows),
                Reply::Done(done) => {
                    send_execution_response(client, Tag::new(done)).await?;
                    client.set_state(PgWireConnectionState::ReadyForQuery);
                    return Ok(());
                }
                Reply::Transaction(done, status) => {
                    send_execution_response(client, Tag::new(done)).await?;
                    client.set_transaction_status(status);
                    client.set_state(PgWireConnectionState::ReadyForQuery);
                    if matches!(status, TransactionStatus::Idle) {
                        client.portal_store().clear_portals();
                    }
                    return Ok(());
                }
            }
        }
        let most = usize::try_from(message.max_rows).unwrap_or(0);
        match state.deref_mut() {
            PortalExecutionState::Suspended(rows) => {
                let more = send_partial_query_response(client, rows, most).await?;
                if !more {
                    *state = PortalExecutionState::Finished;
                }
            }
            PortalExecutionState::Initial | PortalExecutionState::Finished => {
                send_execution_response(client, Tag::new("SELECT").with_rows(0)).await?;
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn do_query<C>(&self, _: &mut C, _: &Portal<Self::Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(Refusal::new("XX000", "portals are executed as their rows come").into())
    }
}

impl Parsed {
    fn columns(&self, format: &Format) -> Result<Vec<FieldInfo>, Refusal> {
        match (&self.prepared, &self.fields, &self.command) {
            (Some(prepared), _, Command::Ask(statement)) => {
                let names = column_names(&Statement::Statement(statement.clone()));
                fields(&named(&prepared.schema, names.as_deref()), format)
            }
            (_, Some(fields), _) => Ok(fields.to_vec()),
            (_, None, Command::Show(name)) => Ok(vec![text_field(name)]),
            (_, None, _) => Ok(Vec::new()),
        }
    }

    /// The values a portal is bound to.
    fn values(&self, portal: &Portal<Self>) -> PgWireResult<ParamValues> {
        let (wanted, given) = (self.parameters(), &portal.statement.parameter_types);
        // A value is what the client says it is, and the engine compares it as that; else what it is compared with.
        let says = |index: usize| given.get(index).and_then(Option::as_ref).is_some_and(|kind| *kind != Type::UNKNOWN);
        let kinds = wanted.iter().enumerate().map(|(index, kind)| (!says(index)).then_some(kind));
        let types: Vec<Option<&DataType>> = kinds.collect();
        let values = deserialize_parameters(portal, &types)?;
        match &values {
            // A null of a type that has no values here is left out.
            ParamValues::List(list) if list.len() != portal.parameter_len() => {
                Err(Refusal::new("0A000", "a parameter has a type that is unknown here; cast it").into())
            }
            _ => Ok(values),
        }
    }

    /// The types of its parameters: text, where they may be anything.
    fn parameters(&self) -> Vec<DataType> {
        let wanted = self.prepared.as_ref().map(|prepared| prepared.parameters.as_slice()).unwrap_or_default();
        wanted.iter().map(|kind| kind.clone().unwrap_or(DataType::Utf8)).collect()
    }
}

#[async_trait]
impl QueryParser for Statements {
    type Statement = Parsed;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Parsed>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let connection = Connection::of(client)?;
        let mut statements = self.parse(sql)?;
        if statements.len() > 1 {
            return Err(Refusal::syntax("cannot insert multiple commands into a prepared statement").into());
        }
        let Some(statement) = statements.pop() else { return Ok(None) };
        let command = Command::of(statement)?;
        let prepared = match &command {
            Command::Ask(statement) => {
                let freshness = connection.asking()?.freshness;
                match self.api.prepare(Statement::Statement(statement.clone()), freshness).await {
                    Ok(prepared) => Some(with_lists(prepared, sql, statement)),
                    Err(problem) => return Err(self.placed(Refusal::of(&problem, sql), sql).await.into()),
                }
            }
            _ => None,
        };
        let fields = match &command {
            Command::Fetch { cursor, .. } => connection.cursor_fields(cursor).await,
            _ => None,
        };
        Ok(Some(Parsed { text: sql.to_owned(), command, prepared, fields }))
    }

    fn get_parameter_types(&self, parsed: &Parsed) -> PgWireResult<Vec<Type>> {
        parsed.parameters().iter().map(into_pg_type).collect()
    }

    fn get_result_schema(&self, parsed: &Parsed, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(parsed.columns(format.unwrap_or(&Format::UnifiedText))?)
    }
}
