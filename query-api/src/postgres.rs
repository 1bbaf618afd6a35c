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
mod rows;
mod statement;

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    io,
    ops::DerefMut,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{Sink, SinkExt, StreamExt, stream};
use ingest::bodies::share;
use lake::{ParamValues, Statement, session, sqlparser::ast};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DEFAULT_NAME, METADATA_DATABASE, PgWireConnectionState, PgWireServerHandlers,
        PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
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
        results::{DescribePortalResponse, QueryResponse, Response, Tag},
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage, PgWireFrontendMessage,
        cancel::CancelRequest,
        extendedquery::{Bind, BindComplete, Describe, Execute, TARGET_TYPE_BYTE_PORTAL},
        response::{EmptyQueryResponse, TransactionStatus},
        simplequery::Query,
    },
    tokio::process_socket,
};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    AppState,
    client_places::{ClientPlace, ClientPlaces},
};
use command::Command;
use connection::{Connection, Connections, SERVER_VERSION};
use error::Refusal;
use rows::{column_names, fields, named, one_value, rows};
use statement::{ParsedStatement, Statements};

/// A connection that has said nothing for so long gives its place to another that needs one.
const YIELDS_AFTER: Duration = Duration::from_millis(500);
/// How long to wait where the system gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
const DATABASE: &str = "forecourt";

/// Serve the Postgres wire until `stop`, over at most so many connections.
///
/// # Errors
/// When the listener fails.
pub async fn serve_postgres(
    listener: TcpListener,
    api: AppState,
    max_connections: usize,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let service = Service {
        statements: Arc::new(Statements { api }),
        places: ClientPlaces::new(max_connections),
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
                if connections.len() >= 2 * max_connections {
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
            let most = self.places.max();
            let own = share(most);
            let message = format!("{most} connections are open, or {own} from this address; close one, or come again");
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

/// What a statement is answered with.
enum Reply {
    Rows(QueryResponse),
    Done(&'static str),
    /// Done, and a transaction is open from here on, or no more.
    Transaction(&'static str, TransactionStatus),
}

impl Service {
    /// Do what a statement wants. `values` are those of its parameters.
    async fn run(
        &self,
        connection: &Arc<Connection>,
        status: TransactionStatus,
        parsed: &ParsedStatement,
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
            let parsed = ParsedStatement { text, command: Command::of(statement)?, prepared: None, fields: None };
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
    type Statement = ParsedStatement;
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
