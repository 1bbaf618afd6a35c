//! A `nats-server` of our own, when the operator names none.
//!
//! Its store lies under the data directory and its port is written beside it. A forecourt that is killed leaves the
//! server running, and the next one finds it again by that port and its name instead of starting a second server
//! on the same store. Only who can read the folder, its owner, can sign in.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    LogAccess,
    disk::{DiskRoom, write_private},
};

/// The oldest server with atomic batches.
const MIN_VERSION: (u32, u32) = (2, 12);
/// A server reads its store before it listens, and a large one takes minutes: how often that is told.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How long a server may take to stop: it writes down what its store holds.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// How often a server that is not ours to wait on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Larger than the largest event, so that what is too large reaches the dead letters instead of being dropped.
const MAX_PAYLOAD: u32 = 16 << 20;

/// What keeps the server from running.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("no nats-server 2.12 or newer on PATH or in {tools}; run scripts/get-nats-server, or pass --nats URL")]
    NotFound { tools: PathBuf },
    #[error("cannot use {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {binary}")]
    Spawn {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("nats-server ended before it listened; its log is {log}")]
    NotListening { log: PathBuf },
}

/// Where a server of ours listens, and what it is called.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Running {
    port: u16,
    name: String,
    pid: u32,
}

/// How a client on this machine reaches the server, as the `nats` command keeps it.
#[derive(Clone, Serialize, Deserialize)]
pub struct NatsContext {
    pub description: String,
    pub url: String,
    pub user: String,
    pub password: String,
}

impl NatsContext {
    /// The file in a data folder's `nats`.
    #[must_use]
    pub fn file(folder: &Path) -> PathBuf {
        folder.join("context.json")
    }

    /// What the server in a folder was started with last; none, where there is none.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::file(folder)).ok()?).ok()
    }

    /// That of a server on this port, written down. The credential is made once.
    fn of(folder: &Path, port: u16) -> io::Result<Self> {
        let url = format!("nats://127.0.0.1:{port}");
        let context = match Self::read(folder) {
            Some(known) => Self { url, ..known },
            None => Self {
                description: "the log of forecourt".to_owned(),
                url,
                user: "forecourt".to_owned(),
                password: format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()),
            },
        };
        write_private(&Self::file(folder), &serde_json::to_vec_pretty(&context)?)?;
        Ok(context)
    }

    /// How the log is connected to.
    #[must_use]
    pub fn access(&self) -> LogAccess {
        LogAccess { user: Some(self.user.clone()), password: Some(self.password.clone()), authorities: None }
    }

    /// The address with the credential in it.
    #[must_use]
    pub fn login_url(&self) -> String {
        self.url.replacen("//", &format!("//{}:{}@", self.user, self.password), 1)
    }
}

/// A supervised server: restarted when it dies, stopped by [`NatsServer::stop`].
pub struct NatsServer {
    context: NatsContext,
    stop: CancellationToken,
    restart: Arc<Notify>,
    supervisor: JoinHandle<()>,
}

impl NatsServer {
    /// Where a server in `folder` keeps its streams. It syncs the files in there, and not that the folder itself is there.
    #[must_use]
    pub fn store_folder(folder: &Path) -> PathBuf {
        folder.join("store")
    }

    /// Start a server with its store in `folder`, or find the one that already runs there.
    ///
    /// # Errors
    /// When there is no server to start, or it does not come up.
    pub fn start(folder: &Path) -> BoxFuture<'_, Result<Self, ServerError>> {
        async move {
            let unusable = |source| ServerError::Folder { path: folder.to_owned(), source };
            fs::create_dir_all(folder).map_err(unusable)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
            let binary = find_binary().await.ok_or_else(|| ServerError::NotFound { tools: tools_folder() })?;
            let setup = Setup { binary, folder: folder.to_owned() };
            let (running, child) = match setup.find_running().await? {
                Some(running) => {
                    tracing::info!(port = running.port, "found the nats-server of an earlier run");
                    (running, None)
                }
                None => {
                    let port = free_port().map_err(unusable)?;
                    let (running, child) = setup.launch(port).await?;
                    (running, Some(child))
                }
            };
            let context = NatsContext::of(folder, running.port).map_err(unusable)?;
            let (stop, restart) = (CancellationToken::new(), Arc::new(Notify::new()));
            let supervisor = tokio::spawn(supervise(setup, running, child, stop.clone(), Arc::clone(&restart)));
            Ok(Self { context, stop, restart, supervisor })
        }
        .boxed()
    }

    /// How it is reached.
    #[must_use]
    pub const fn context(&self) -> &NatsContext {
        &self.context
    }

    /// What has the server stopped and started again, on the same store and port. It keeps an error of its disk until then.
    #[must_use]
    pub fn restarter(&self) -> Arc<Notify> {
        Arc::clone(&self.restart)
    }

    /// Stop the server and wait until it has.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        async move {
            self.stop.cancel();
            if let Err(error) = self.supervisor.await {
                tracing::error!(error = %error, "the nats-server supervisor failed");
            }
        }
        .boxed()
    }
}

struct Setup {
    binary: PathBuf,
    folder: PathBuf,
}

impl Setup {
    fn running_file(&self) -> PathBuf {
        self.folder.join("running.json")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("nats-server.log")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("nats-server.conf")
    }

    /// Whether a process is a living nats-server of this folder.
    async fn is_alive(&self, pid: u32) -> bool {
        let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else {
            if Path::new("/proc/self").exists() {
                return false;
            }
            // No /proc here: ask the system whether it could be signalled.
            let asked = Command::new("kill").args(["-0", &pid.to_string()]).output().await;
            return asked.is_ok_and(|out| out.status.success());
        };
        let command = String::from_utf8_lossy(&command);
        let mut words = command.split('\0').skip_while(|word| *word != "-c").skip(1);
        let named = words.next().map(|config| Path::new(&format!("/proc/{pid}/cwd")).join(config));
        let named = named.and_then(|config| fs::canonicalize(config).ok());
        named.is_some() && named == fs::canonicalize(self.config_file()).ok()
    }

    /// The server an earlier run left behind. While its process lives, no other may touch the store: one that does
    /// not answer yet is still reading it, and is waited for.
    async fn find_running(&self) -> Result<Option<Running>, ServerError> {
        let text = fs::read(self.running_file()).ok();
        let Some(running) = text.and_then(|text| serde_json::from_slice::<Running>(&text).ok()) else {
            return Ok(None);
        };
        Ok(self.listens(&running, None).await.then_some(running))
    }

    /// Wait until a server listens; whether it does, or has ended.
    async fn listens(&self, running: &Running, mut child: Option<&mut Child>) -> bool {
        let (started, mut told) = (Instant::now(), Instant::now());
        while name_at(running.port).await.as_deref() != Some(running.name.as_str()) {
            let lives = match &mut child {
                Some(child) => child.try_wait().is_ok_and(|ended| ended.is_none()),
                None => self.is_alive(running.pid).await,
            };
            if !lives {
                return false;
            }
            if told.elapsed() >= TOLD_EVERY {
                let (seconds, log) = (started.elapsed().as_secs(), self.log_file());
                tracing::info!(seconds, pid = running.pid, log = %log.display(), "nats-server reads its store and does not listen yet");
                told = Instant::now();
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }

    async fn launch(&self, port: u16) -> Result<(Running, Child), ServerError> {
        let (running, mut child) = self.spawn(port)?;
        if !self.listens(&running, Some(&mut child)).await {
            // It has ended, or ends now.
            let _ = child.kill().await;
            return Err(ServerError::NotListening { log: self.log_file() });
        }
        Ok((running, child))
    }

    fn spawn(&self, port: u16) -> Result<(Running, Child), ServerError> {
        let unusable = |source| ServerError::Folder { path: self.folder.clone(), source };
        let name = format!("forecourt-{}", uuid::Uuid::new_v4().simple());
        let config = self.config_file();
        let store = NatsServer::store_folder(&self.folder);
        fs::create_dir_all(&store).map_err(unusable)?;
        let room = room(&store).map(|room| format!("  max_file_store: {room}\n")).unwrap_or_default();
        let NatsContext { user, password, .. } = NatsContext::of(&self.folder, port).map_err(unusable)?;
        let text = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nmax_payload: {MAX_PAYLOAD}\n\
             authorization {{\n  user: {user:?}\n  password: {password:?}\n}}\n\
             jetstream {{\n  store_dir: {store:?}\n{room}  sync_interval: always\n}}\n"
        );
        write_private(&config, text.as_bytes()).map_err(unusable)?;
        let log = fs::File::options().create(true).append(true).mode(0o600).open(self.log_file()).map_err(unusable)?;
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(&config).stdin(Stdio::null());
        // Ctrl-C reaches every process of the terminal's group; the server must outlive what still writes to it.
        command.process_group(0);
        command.stdout(log.try_clone().map_err(unusable)?).stderr(log);
        let child = command.spawn().map_err(|source| ServerError::Spawn { binary: self.binary.clone(), source })?;
        let running = Running { port, name, pid: child.id().unwrap_or_default() };
        // Known before it listens: should we be killed meanwhile, the next run must find it.
        let known = serde_json::to_vec(&running).unwrap_or_default();
        write_private(&self.running_file(), &known).map_err(unusable)?;
        Ok((running, child))
    }
}

/// How large a store may become: what it has, and most of what is free. Of itself the server allows three quarters of what is
/// free, whatever it has already: one that filled half of a disk would take nothing after it was started again.
fn room(store: &Path) -> Option<u64> {
    Some(size(store) + DiskRoom::of(store)?.free_bytes / 10 * 9)
}

/// What the files of a folder add up to; those that cannot be looked at are none of the server's.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some((entry.metadata().ok()?, entry.path())));
    sizes.map(|(known, path)| if known.is_dir() { size(&path) } else { known.len() }).sum()
}

/// Keep the server running until told to stop, then stop it.
async fn supervise(
    setup: Setup,
    mut running: Running,
    mut child: Option<Child>,
    stop: CancellationToken,
    restart: Arc<Notify>,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = restart.notified() => {
                tracing::info!(pid = running.pid, "starting nats-server again");
                if !end(&setup, &running, child.as_mut()).await {
                    continue;
                }
            }
            () = ended(&setup, &running, child.as_mut()) => {
                tracing::error!(pid = running.pid, "nats-server ended; starting it again");
            }
        }
        let launched = match setup.spawn(running.port) {
            Ok((next, mut next_child)) => {
                let listens = tokio::select! {
                    // What reads its store is stopped like what listens.
                    () = stop.cancelled() => true,
                    listens = setup.listens(&next, Some(&mut next_child)) => listens,
                };
                (running, child) = (next, Some(next_child));
                // Who asked for this start meanwhile has it.
                let _ = restart.notified().now_or_never();
                if listens { Ok(()) } else { Err(ServerError::NotListening { log: setup.log_file() }) }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = launched {
            tracing::error!(error = %error, "nats-server does not start; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
    }
    if end(&setup, &running, child.as_mut()).await {
        let _ = fs::remove_file(setup.running_file());
    }
}

/// End the server, in order when it can be: what is killed reads its whole store when it starts again. Whether it has.
async fn end(setup: &Setup, running: &Running, mut child: Option<&mut Child>) -> bool {
    let process = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::KILL, "SIGKILL")] {
        // By ourselves: where there is no process or thread to spare, there is none for a command either.
        if let Some(Err(error)) = process.map(|process| kill_process(process, signal)) {
            tracing::error!(error = %error, pid = running.pid, "cannot stop nats-server");
        }
        if tokio::time::timeout(STOP_WITHIN, ended(setup, running, child.as_deref_mut())).await.is_ok() {
            return true;
        }
        tracing::error!(pid = running.pid, signal = name, "nats-server does not stop");
    }
    false
}

/// Wait until the server has ended: our child by its exit, a found one by its process.
async fn ended(setup: &Setup, running: &Running, child: Option<&mut Child>) {
    match child {
        Some(child) => {
            let _ = child.wait().await;
        }
        None => {
            while setup.is_alive(running.pid).await {
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// The name of the server listening on a loopback port, from the greeting it sends to every client.
async fn name_at(port: u16) -> Option<String> {
    use tokio::io::AsyncBufReadExt;
    #[derive(Deserialize)]
    struct Greeting {
        server_name: String,
    }
    let greet = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut line = String::new();
        tokio::io::BufReader::new(stream).read_line(&mut line).await.ok()?;
        serde_json::from_str::<Greeting>(line.strip_prefix("INFO ")?).ok()
    };
    let greeting = tokio::time::timeout(Duration::from_secs(1), greet).await.ok()??;
    Some(greeting.server_name)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn tools_folder() -> PathBuf {
    std::env::var_os("FORECOURT_TOOLS").map_or_else(|| PathBuf::from(".tools"), PathBuf::from)
}

/// Where an installation keeps its own `nats-server`: in `lib/forecourt` beside the folder of the command.
fn installed() -> Option<PathBuf> {
    let command = std::env::current_exe().ok()?;
    Some(command.parent()?.parent()?.join("lib/forecourt/nats-server"))
}

/// A new enough `nats-server`: the project's own, the installation's, else the one on `PATH`.
async fn find_binary() -> Option<PathBuf> {
    let own = Some(tools_folder().join("nats-server"));
    for candidate in [own, installed(), Some(PathBuf::from("nats-server"))].into_iter().flatten() {
        if version(&candidate).await.is_some_and(|version| version >= MIN_VERSION) {
            return Some(candidate);
        }
    }
    None
}

/// `nats-server: v2.15.1` → (2, 15).
async fn version(binary: &Path) -> Option<(u32, u32)> {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.').map(|number| number.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}
