//! `forecourt up`: everything in one process.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use ingest::{Intake, Log, LogAccess, Publisher, disk::DiskRoom, server::NatsServer, without_password};
use lake::{LakeConfig, Spill, create_durable_folder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use processors::{FormatAccess, Pipeline, PipelineConfig, open_data_folder};
use query_api::{
    Alerts, AppState, Lexicons, Markets, PopularQueries, PublicIds, QueryPermits, WrittenAnswers, derived, periods,
};
use schemas::{Catalogue, Position};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::{
    net::TcpListener,
    runtime::{self, Handle, Runtime},
    signal::unix,
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    arguments::Up,
    catalogue_files,
    clock::now,
    demo::Demo,
    log_lines::log_to_stderr,
    metric_descriptions, open_files,
    settings::{ListenAddress, Settings},
    storage_healing::StorageHealing,
    sync_check,
};

/// What is logged unless told otherwise: the engines' own complaints reach us as errors of ours.
const LOGGED: &str = "warn,forecourt=info,processors=info,ingest=info,buoyant_kernel=off,tantivy=error";
/// Where the Postgres wire is, unless somebody says otherwise.
const DEFAULT_POSTGRES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5433);
/// And Flight SQL.
const DEFAULT_FLIGHT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_051);
/// Of each thread, as far as it is used: a statement of many operators is taken apart on it.
const STACK: usize = 64 << 20;
/// How long an idle thread for blocking work is kept.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(86_400);
/// Priorities, of 100: nice values of about 5 and 12, where the door has 0.
const PIPELINE: u8 = 35;
const QUERIES: u8 = 18;
/// How long requests may take to end after we were told to stop.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a stop may take to write out what the lake does not have yet.
const WRITE_OUT_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: Up) -> anyhow::Result<ExitCode> {
    log_to_stderr(arguments.settings.server.log_filter.as_deref().unwrap_or(LOGGED))?;
    open_files::raise_limit();
    let data = arguments.settings.server.data.clone();
    let metrics = PrometheusBuilder::new().install_recorder().context("cannot set up metrics")?;
    metric_descriptions::describe();
    create_durable_folder(&data).with_context(|| format!("cannot use the data folder {}", data.display()))?;
    let _lock = lock(&data)?;
    open_data_folder(&data, FormatAccess::ReadWrite)?;
    // What a search does on all cores, it does at the door's priority.
    let started = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("search-{number}")).build_global();
    started.context("cannot start the search threads")?;
    // Queries may be heavy: they have threads of their own, so that requests and the pipeline never wait for them. Both
    // give way to the door: what is acknowledged comes first, and what is derived from it catches up. Queries are many, and
    // give way to the pipeline too: it is one, and who reads waits for it.
    // A query that is planned for long keeps its thread, so there are some more than cores.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let queries = giving_way("query", cores + 4, QUERIES).context("cannot start the query threads")?;
    let pipeline = giving_way("pipeline", cores, PIPELINE).context("cannot start the pipeline's threads")?;
    let main = runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .context("cannot start")?;
    // With one thread for blocking work, more of it waits where the system has no thread to spare. Without any, it panics.
    for runtime in [&main, &queries, &pipeline] {
        runtime.spawn_blocking(|| ());
    }
    let threads = Threads { reading: pipeline.handle().clone(), queries: queries.handle().clone() };
    let served = main.block_on(serve(arguments, metrics, threads));
    queries.shutdown_background();
    pipeline.shutdown_timeout(DRAIN_WITHIN);
    main.shutdown_timeout(DRAIN_WITHIN);
    served.map(|()| ExitCode::SUCCESS)
}

/// A runtime whose threads, and those they start, run when the others leave them a core.
fn giving_way(name: &str, count: usize, priority: u8) -> io::Result<Runtime> {
    let lower = move || {
        let priority = ThreadPriorityValue::try_from(priority).map(ThreadPriority::Crossplatform);
        // Where the system does not allow it, all are equal.
        let _ = priority.map(set_current_thread_priority);
    };
    let mut threads = runtime::Builder::new_multi_thread();
    threads.worker_threads(count).enable_all().thread_name(name).thread_stack_size(STACK).on_thread_start(lower);
    threads.thread_keep_alive(THREAD_KEEP_ALIVE).build()
}

/// Keep a second process off the folder, for as long as the file is open.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another forecourt uses {}; stop it first", data.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The threads of the pipeline, and those of queries.
struct Threads {
    reading: Handle,
    queries: Handle,
}

async fn serve(arguments: Up, metrics: PrometheusHandle, threads: Threads) -> anyhow::Result<()> {
    let Settings { server, log, catalogue, .. } = &arguments.settings;
    let catalogue = catalogue_files::load(catalogue.as_deref())?;
    let http = HttpServer::start(&server.http).await?;
    let mut signals = StopSignals::install()?;
    let nats = match log.nats {
        Some(_) => None,
        None => {
            let folder = server.data.join("nats");
            create_durable_folder(&NatsServer::store_folder(&folder)).context("cannot use the log's folder")?;
            let mut starting = NatsServer::start(&folder);
            match signals.race(&mut starting).await {
                Some(started) => Some(started?),
                None => {
                    // One that takes longer is found by the next start.
                    if let Ok(Ok(server)) = tokio::time::timeout(DRAIN_WITHIN, starting).await {
                        server.stop().await;
                    }
                    return Ok(());
                }
            }
        }
    };
    let (url, access) = match (&log.nats, &nats) {
        (None, Some(own)) => (own.context().url.clone(), own.context().access()),
        (given, _) => (given.clone().unwrap_or_default(), log.access()?),
    };
    let restart = nats.as_ref().map(NatsServer::restarter);
    let at = LogAddress { url, access, restart };
    let served = serve_log(&arguments, catalogue, at, http, signals, metrics, threads).await;
    if let Some(server) = nats {
        server.stop().await;
    }
    served
}

/// The HTTP server, which says that everything is being opened until it is.
struct HttpServer {
    address: SocketAddr,
    api: Arc<OnceLock<AppState>>,
    stop: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

impl HttpServer {
    async fn start(address: &ListenAddress) -> anyhow::Result<Self> {
        let listener = bind("--http", address).await?;
        let (address, api, stop) = (listener.local_addr()?, Arc::default(), CancellationToken::new());
        let connections = open_files::http_connections(open_files::limit());
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(query_api::serve(listener, Arc::clone(&api), connections, stopped));
        Ok(Self { address, api, stop, served })
    }
}

/// Where the log is, and what starts its server again, if that is ours.
struct LogAddress {
    url: String,
    access: LogAccess,
    restart: Option<Arc<Notify>>,
}

async fn serve_log(
    arguments: &Up,
    catalogue: Arc<Catalogue>,
    at: LogAddress,
    http: HttpServer,
    mut signals: StopSignals,
    metrics: PrometheusHandle,
    Threads { reading, queries }: Threads,
) -> anyhow::Result<()> {
    let Settings { server, log: log_settings, lake, kpis, dashboards, alerts, .. } = &arguments.settings;
    match (&log_settings.nats, &log_settings.nats_monitor) {
        (Some(_), Some(monitor)) => sync_check::check(monitor).await?,
        (Some(_), None) => tracing::warn!(
            "it is not known whether the NATS server syncs every write; it must have sync_interval: always, and \
             --nats-monitor checks that"
        ),
        (None, Some(_)) => bail!("--nats-monitor is of an existing NATS server: name it with --nats as well"),
        (None, None) => {}
    }
    let Some(log) = signals.race(Log::connect(&at.url, &at.access)).await else { return Ok(()) };
    let log = log?;
    let HttpServer { address, api: opened, stop, served: mut http_server } = http;
    let mut publishing = JoinSet::new();
    let spill = spill(&server.data.join("spill"))?;
    let spill_folder = spill.folder.clone();
    let config = PipelineConfig {
        spill,
        lake: server.data.join("lake"),
        index: server.data.join("index"),
        seen: server.data.join("seen"),
        accept_loss: arguments.accept_loss,
        retention: lake.retention,
        kpis: kpis.definitions()?,
        flush: LakeConfig {
            flush_rows: lake.flush_rows as usize,
            flush_after: Duration::from_secs(lake.flush_seconds),
            ..LakeConfig::default()
        },
    };
    let mut started = reading.spawn({
        let (catalogue, log, stop) = (Arc::clone(&catalogue), log.clone(), stop.clone());
        let queries = queries.clone();
        async move {
            // Its stages run where it is started.
            let mut stages = JoinSet::new();
            let pipeline = Pipeline::start(config, catalogue, log, queries, &mut stages, stop).await?;
            anyhow::Ok((pipeline, stages))
        }
    });
    let Some(opened_pipeline) = signals.race(&mut started).await else {
        // What is being derived is derived again by the next start.
        started.abort();
        return Ok(());
    };
    let (pipeline, mut stages) = opened_pipeline??;
    let publisher = Publisher::start(log, Arc::clone(&pipeline.seen), &mut publishing, stop.clone());
    let healing = at.restart.map(|restart| {
        let (publisher, log) = (publisher.clone(), pipeline.log_status.clone());
        let healing = StorageHealing { restart, folder: server.data.clone(), publisher, log };
        tokio::spawn(healing.run())
    });
    let intake = Intake::new(Arc::clone(&catalogue), publisher, now);
    let seen = Arc::clone(&pipeline.seen);
    let alerts = Alerts::open(&server.data.join("alerts"), alerts.webhooks_inside).context("cannot keep alerts")?;
    let render = move || metrics.render();
    let api = AppState {
        catalogue,
        intake,
        pipeline: pipeline.clone(),
        metrics: Arc::new(render),
        now,
        query_permits: Arc::new(QueryPermits::default()),
        lexicons: Lexicons::new(&queries),
        markets: Markets::new(&queries),
        public_ids: PublicIds::new(&queries),
        popular: PopularQueries::default(),
        stop: stop.clone(),
        kpi_metrics: dashboards.kpi_metrics,
        written_kpis: WrittenAnswers::default(),
        alerts,
        caught_up: Arc::default(),
    };
    let alerts = tokio::spawn(Alerts::keep(api.clone()));
    let since = periods::since(&server.data, dashboards.close_periods_from, now())?;
    let closing = tokio::spawn(periods::close(api.clone(), since));
    let deriving = queries.spawn(derived::keep(api.clone()));

    let postgres = listen("--postgres", server.postgres.as_ref(), DEFAULT_POSTGRES).await?;
    let flight = listen("--flight", server.flight.as_ref(), DEFAULT_FLIGHT).await?;
    let addresses = Addresses {
        http: address,
        postgres: postgres.local_addr()?,
        flight: flight.local_addr()?,
        nats: without_password(&at.url),
    };
    // Nothing is there before: this sets it.
    opened.get_or_init(|| api.clone());
    let mut wires = JoinSet::new();
    let most = open_files::wire_connections(open_files::limit());
    wires.spawn(query_api::serve_postgres(postgres, api.clone(), most, stop.clone().cancelled_owned()));
    wires.spawn(query_api::serve_flight(flight, api.clone(), most, stop.clone().cancelled_owned()));
    let demo = arguments.demo.then(|| arguments.settings.server.data.clone());
    let announce = announce(api, addresses, demo);
    let mut announced = tokio::spawn(announce);

    let ended = tokio::select! {
        () = signals.received() => Ok(()),
        Some(stage) = stages.join_next() => Err(match stage {
            Ok(Err(error)) => anyhow::Error::new(error).context("the pipeline stopped"),
            Ok(Ok(())) => anyhow!("a stage of the pipeline ended"),
            Err(error) => anyhow::Error::new(error).context("a stage of the pipeline failed"),
        }),
        served = &mut http_server => Err(match served {
            Ok(Err(error)) => anyhow::Error::new(error).context("the HTTP server stopped"),
            _ => anyhow!("the HTTP server stopped"),
        }),
        Some(Ok(Err(error))) = wires.join_next() => Err(anyhow::Error::new(error).context("a listener failed")),
        Err(error) = wait_failure(&mut announced) => Err(error),
    };
    stop.cancel();
    announced.abort();
    if let Some(healing) = healing {
        healing.abort();
    }
    tracing::info!("stopping");
    let _ = tokio::time::timeout(DRAIN_WITHIN, async { tokio::join!(alerts, closing, deriving) }).await;
    // Requests end first, so that what they publish is acknowledged; then the log's readers; then nothing is written.
    let _ = tokio::time::timeout(DRAIN_WITHIN, http_server).await;
    let _ = tokio::time::timeout(DRAIN_WITHIN, async { while publishing.join_next().await.is_some() {} }).await;
    let written_out = async {
        while let Some(stage) = stages.join_next().await {
            if let Ok(Err(error)) = stage {
                tracing::error!(error = &error as &dyn std::error::Error, "a stage ended badly");
            }
        }
    };
    if tokio::time::timeout(WRITE_OUT_WITHIN, written_out).await.is_err() {
        tracing::error!("the lake does not take what is to be written out; the next start reads it from the log again");
    }
    // What queries left there is nobody's.
    let _ = fs::remove_dir_all(spill_folder);
    if let Err(error) = seen.write_out() {
        // It costs the next start a look into the lake.
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot write out the seen events");
    }
    ended
}

/// The folder that queries spill to, without what a process left there that was killed; half of the disk's room is for it.
fn spill(folder: &Path) -> anyhow::Result<Spill> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let most_bytes = DiskRoom::of(folder).map_or(u64::MAX, |room| room.free_bytes / 2);
    Ok(Spill { folder: folder.to_owned(), most_bytes })
}

/// Where a server listens.
struct Addresses {
    http: SocketAddr,
    postgres: SocketAddr,
    flight: SocketAddr,
    nats: String,
}

/// Listen on an address, the first of those that a host's name stands for.
async fn bind(flag: &str, address: &ListenAddress) -> anyhow::Result<TcpListener> {
    let failed = || format!("cannot listen on {address}; choose another address with {flag}");
    let mut addresses = address.resolve().await.with_context(failed)?;
    // A name that has both is reached where the printed addresses are.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    TcpListener::bind(addresses.as_slice()).await.with_context(failed)
}

/// Listen on the address given; or else on the usual one, or on a free port if that is taken.
async fn listen(flag: &str, given: Option<&ListenAddress>, usual: SocketAddr) -> anyhow::Result<TcpListener> {
    if let Some(address) = given {
        return bind(flag, address).await;
    }
    match TcpListener::bind(usual).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            tracing::info!(%usual, flag, "the address is taken; listening on a free port");
            Ok(TcpListener::bind((usual.ip(), 0)).await?)
        }
        Err(_) => bind(flag, &usual.into()).await,
        Ok(listener) => Ok(listener),
    }
}

/// The announcement's failure; never its success.
async fn wait_failure(announced: &mut tokio::task::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    match announced.await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => std::future::pending().await,
        Err(error) => Err(error.into()),
    }
}

/// What asks the process to end.
struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl StopSignals {
    fn install() -> io::Result<Self> {
        let [terminate, interrupt] = [unix::SignalKind::terminate(), unix::SignalKind::interrupt()].map(unix::signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What `work` gives, unless a signal comes first.
    async fn race<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.received() => None,
        }
    }
}

/// Wait until everything the log held is reflected, and say so in one line. With a folder for the demo, load that first, and
/// go on with it afterwards.
async fn announce(api: AppState, addresses: Addresses, demo: Option<PathBuf>) -> anyhow::Result<()> {
    let Addresses { http, postgres, flight, nats } = addresses;
    let pipeline = &api.pipeline;
    let end = pipeline.log_end_at_start;
    pipeline.lake.clone().wait_for(|view| view.as_ref().is_some_and(|view| view.position >= end)).await?;
    let demo = match demo {
        Some(data) => Some(Demo::load(&data, http).await.context("cannot load the demo")?),
        None => None,
    };
    let end = demo.as_ref().map_or(end, |demo| demo.position.max(end));
    let mut listings = pipeline.listings.clone();
    let listings = listings.wait_for(|listings| listings.as_ref().is_some_and(|it| it.position >= end)).await?.clone();
    if let Some(listings) = listings {
        // A market that was just loaded is learned as it is; otherwise any will do for a moment.
        let from = if demo.is_some() { end } else { Position::START };
        // What fails is logged, and tried again. All else is there meanwhile.
        let _ = tokio::join!(api.markets.get(&listings, from), api.lexicons.get(&listings, from));
    }
    pipeline.kpis.cache.clone().wait_for(|board| board.as_ref().is_some_and(|board| board.position >= end)).await?;
    let mut said = format!("ready http=http://{http} postgres={postgres} flight={flight} nats={nats} position={end}\n");
    if demo.is_some() {
        said += &what_to_try(http, postgres);
    }
    let mut output = io::stdout();
    if let Err(error) = output.write_all(said.as_bytes()).and_then(|()| output.flush()) {
        tracing::warn!(%error, "nobody reads standard output; the server goes on");
    }
    if let Some(demo) = demo {
        demo.play_live().await;
    }
    Ok(())
}

fn what_to_try(address: SocketAddr, postgres: SocketAddr) -> String {
    let command = command_as_typed();
    let mut text = format!(
        "\nOpen:\n  http://{address}/              search cars\n  http://{address}/dashboard     the KPIs\n  \
         http://{address}/sql           ask in SQL\n  http://{address}/openapi.json  everything there is\n\nTry:\n  \
         curl 'http://{address}/v1/search?make=Honda&price_max=30000&near=43.65,-79.38&radius_km=100&sort=distance'\n  \
         curl 'http://{address}/v1/kpis/sales_volume?grain=month'\n  \
         {command} sql --to http://{address} 'SELECT event_type, count(*) AS events FROM lake.events GROUP BY 1 ORDER BY 2 DESC LIMIT 5'\n  \
         {command} simulate --live --to http://{address}\n"
    );
    if on_path("psql").is_some() {
        let (host, port) = (postgres.ip(), postgres.port());
        text += &format!("  psql 'host={host} port={port} dbname=forecourt user=analyst' -c '\\d current.vehicles'\n");
    }
    text
}

/// This command as somebody can type it here: by its name where PATH finds it, else by its path.
fn command_as_typed() -> String {
    let Ok(own) = std::env::current_exe() else { return "forecourt".to_owned() };
    if on_path("forecourt").and_then(|found| found.canonicalize().ok()) == own.canonicalize().ok() {
        return "forecourt".to_owned();
    }
    let here =
        std::env::current_dir().ok().and_then(|here| own.strip_prefix(here).ok().map(|own| Path::new(".").join(own)));
    let path = here.unwrap_or(own).display().to_string();
    let is_plain = path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
    if is_plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// Where PATH finds a command.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
