//! What belongs to one connection: its settings, its cursors, its transaction.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pgwire::{
    api::{
        ClientInfo,
        results::{FieldInfo, QueryResponse},
    },
    messages::startup::SecretKey,
};
use schemas::Position;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::error::Refusal;
use crate::{
    asking::{AsOf, Asking, DEFAULT_TIME, MAX_TIME},
    client_places::ClientPlace,
    consistency::Freshness,
};

/// Settings that change nothing here: clients set them when they connect, or tidy up.
const IGNORED: [&str; 12] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "row_security",
    "session.characteristics",
    "synchronize_seqscans",
    "default_transaction_read_only",
];
/// Settings that have one value.
const FIXED: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("timezone", "UTC"),
    ("standard_conforming_strings", "on"),
    ("search_path", "lake"),
    ("transaction_read_only", "on"),
    ("is_superuser", "off"),
    ("integer_datetimes", "on"),
    ("max_identifier_length", "63"),
    ("jit", "off"),
    ("server_version_num", "160006"),
];
/// The version of Postgres whose clients know their way here.
pub(crate) const SERVER_VERSION: &str = "16.6 (Forecourt)";
const AS_OF: &str = "forecourt.as_of";
const MIN_POSITION: &str = "forecourt.min_position";
const WAIT: &str = "forecourt.wait_ms";
const TIMEOUT: &str = "statement_timeout";

/// Cursors a connection may have open.
const MAX_CURSORS: usize = 8;

/// A connection.
pub(crate) struct Connection {
    state: Mutex<State>,
    /// Rows on their way, by cursor.
    pub(crate) cursors: tokio::sync::Mutex<HashMap<String, Arc<tokio::sync::Mutex<QueryResponse>>>>,
    key: (i32, SecretKey),
    _place: ClientPlace,
}

#[derive(Default)]
struct State {
    /// As they were set.
    settings: HashMap<String, String>,
    transaction: Transaction,
    cancel: CancellationToken,
}

/// What a transaction reads.
#[derive(Clone, Copy, Default)]
enum Transaction {
    /// Each statement the newest there is.
    #[default]
    Newest,
    /// All what the first reads, which is not there yet.
    First,
    At(Position),
}

impl Connection {
    pub(crate) fn new(key: (i32, SecretKey), place: ClientPlace) -> Self {
        Self { state: Mutex::default(), cursors: tokio::sync::Mutex::default(), key, _place: place }
    }

    /// That of a client which has connected.
    pub(crate) fn of(client: &(impl ClientInfo + ?Sized)) -> Result<Arc<Self>, Refusal> {
        let found = client.session_extensions().get::<Arc<Self>>();
        found.map(|found| Arc::clone(&*found)).ok_or_else(|| Refusal::fatal("08003", "the connection is not open"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement begins: what ends it when the client asks for that.
    pub(crate) fn begin_statement(&self) -> CancellationToken {
        let token = CancellationToken::new();
        self.state().cancel = token.clone();
        token
    }

    /// How a statement is to be answered.
    pub(crate) fn asking(&self) -> Result<Asking, Refusal> {
        let state = self.state();
        let setting = |name: &str| state.settings.get(name).map(String::as_str);
        let as_of = match state.transaction {
            Transaction::At(position) => AsOf::Position(position),
            Transaction::First | Transaction::Newest => match setting(AS_OF) {
                None => AsOf::Now,
                Some(text) => {
                    AsOf::of(&Value::from(text)).ok_or_else(|| invalid(AS_OF, text, "a position or a time"))?
                }
            },
        };
        let number = |name: &str, unset: u64| setting(name).map_or(unset, |text| text.parse().unwrap_or(unset));
        let freshness = Freshness::new(
            Position::new(number(MIN_POSITION, 0)),
            setting(WAIT).and_then(|text| text.parse().ok()).map(Duration::from_millis),
        );
        let time = setting(TIMEOUT).and_then(duration).unwrap_or(DEFAULT_TIME);
        let limits = lake::QueryLimits { rows: usize::MAX, time };
        Ok(Asking { as_of, freshness, limits })
    }

    /// A statement was answered at this position: those after it in a transaction of one position are as well.
    pub(crate) fn answered_at(&self, position: Position) {
        let mut state = self.state();
        if matches!(state.transaction, Transaction::First) {
            state.transaction = Transaction::At(position);
        }
    }

    /// A transaction begins or ends.
    pub(crate) fn isolate(&self, one_position: bool) {
        self.state().transaction = if one_position { Transaction::First } else { Transaction::Newest };
    }

    /// A transaction has ended.
    pub(crate) async fn end_transaction(&self) {
        self.isolate(false);
        self.cursors.lock().await.clear();
    }

    pub(crate) async fn open_cursor(&self, name: &str, rows: QueryResponse) -> Result<(), Refusal> {
        let mut cursors = self.cursors.lock().await;
        if cursors.contains_key(name) {
            return Err(Refusal::new("42P03", format!("there is a cursor {name} already")));
        }
        if cursors.len() >= MAX_CURSORS {
            return Err(Refusal::new("53400", format!("a connection has at most {MAX_CURSORS} cursors; close one")));
        }
        cursors.insert(name.to_owned(), Arc::new(tokio::sync::Mutex::new(rows)));
        Ok(())
    }

    /// The columns of a cursor's rows.
    pub(crate) async fn cursor_fields(&self, name: &str) -> Option<Arc<Vec<FieldInfo>>> {
        let open = self.cursors.lock().await.get(name).cloned()?;
        Some(open.lock_owned().await.row_schema())
    }

    /// Set something, if it can be.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), Refusal> {
        if value.eq_ignore_ascii_case("default") {
            return self.reset(Some(name));
        }
        match name {
            AS_OF if AsOf::of(&Value::from(value)).is_none() => Err(invalid(name, value, "a position or a time")),
            MIN_POSITION | WAIT if value.parse::<u64>().is_err() => Err(invalid(name, value, "a whole number")),
            TIMEOUT => match duration(value) {
                Some(time) if time <= MAX_TIME => Ok(()),
                _ => Err(invalid(name, value, &format!("a time up to {} s", MAX_TIME.as_secs()))),
            },
            "timezone" if !matches!(value.to_uppercase().as_str(), "UTC" | "ETC/UTC" | "GMT" | "Z" | "0") => {
                Err(Refusal::new("22023", "times are in UTC here; convert them with AT TIME ZONE"))
            }
            "search_path" if !is_default_path(value) => {
                Err(Refusal::new("22023", "tables are named with their schema here, such as inventory.price_set"))
            }
            "client_encoding" if !matches!(value.to_uppercase().as_str(), "UTF8" | "UTF-8" | "UNICODE") => {
                Err(invalid(name, value, "UTF8"))
            }
            "datestyle" if !value.to_uppercase().starts_with("ISO") => Err(invalid(name, value, "ISO")),
            "standard_conforming_strings" if !matches!(value, "on" | "true" | "1") => Err(invalid(name, value, "on")),
            AS_OF
            | MIN_POSITION
            | WAIT
            | "timezone"
            | "search_path"
            | "client_encoding"
            | "datestyle"
            | "standard_conforming_strings" => Ok(()),
            _ if IGNORED.contains(&name) => Ok(()),
            _ => Err(Refusal::unknown_setting(name)),
        }?;
        self.state().settings.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Forget a setting, or all of them.
    pub(crate) fn reset(&self, name: Option<&str>) -> Result<(), Refusal> {
        match name {
            Some(name) => {
                self.show(name)?;
                self.state().settings.remove(name);
            }
            None => self.state().settings.clear(),
        }
        Ok(())
    }

    /// A setting's value.
    pub(crate) fn show(&self, name: &str) -> Result<String, Refusal> {
        let name = match name {
            "time.zone" => "timezone",
            "transaction.isolation.level" => "transaction_isolation",
            name => name,
        };
        let state = self.state();
        if let Some((_, value)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            return Ok((*value).to_owned());
        }
        let isolation = match state.transaction {
            Transaction::Newest => "read committed",
            Transaction::First | Transaction::At(_) => "repeatable read",
        };
        match (name, state.settings.get(name)) {
            ("server_version", _) => Ok(SERVER_VERSION.to_owned()),
            ("transaction_isolation" | "default_transaction_isolation", _) => Ok(isolation.to_owned()),
            (_, Some(value)) => Ok(value.clone()),
            (TIMEOUT, None) => Ok(format!("{}s", DEFAULT_TIME.as_secs())),
            (AS_OF, None) => Ok("now".to_owned()),
            (MIN_POSITION, None) => Ok("0".to_owned()),
            (WAIT, None) => Ok("2000".to_owned()),
            (name, None) if IGNORED.contains(&name) => Ok(String::new()),
            (name, None) => Err(Refusal::unknown_setting(name)),
        }
    }
}

fn invalid(name: &str, value: &str, expected: &str) -> Refusal {
    Refusal::new("22023", format!("{name} is {expected}, not {value:?}"))
}

/// Whether a search path is the one there is: `lake`, under any of the names clients give to their usual one.
fn is_default_path(path: &str) -> bool {
    let mut names = path.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
    names.all(|name| matches!(name, "$user" | "public" | "lake" | "pg_catalog" | ""))
}

/// A time in milliseconds, or with its unit; none at all is the longest there is.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match text[digits.len()..].trim() {
        "" | "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "min" => number.checked_mul(60_000)?,
        _ => return None,
    };
    Some(if milliseconds == 0 { MAX_TIME } else { Duration::from_millis(milliseconds) })
}

/// Every open connection, for requests to cancel what one of them does.
#[derive(Default)]
pub(crate) struct Connections(Mutex<HashMap<i32, Weak<Connection>>>);

impl Connections {
    fn open(&self) -> MutexGuard<'_, HashMap<i32, Weak<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, connection: &Arc<Connection>) {
        let mut open = self.open();
        open.retain(|_, connection| connection.strong_count() > 0);
        open.insert(connection.key.0, Arc::downgrade(connection));
    }

    /// Cancel what a connection does, if that is its key.
    pub(crate) fn cancel(&self, pid: i32, key: &SecretKey) {
        let found = self.open().get(&pid).and_then(Weak::upgrade);
        if let Some(connection) = found.filter(|connection| connection.key.1 == *key) {
            connection.state().cancel.cancel();
        }
    }
}
