//! How long nobody can write when a leader goes: three servers on loopback at default settings,
//! clients that write without pause, and the longest time without an acknowledgement around the
//! moment at which the leader is killed, or stopped in order. Debian's ZooKeeper does the same in
//! turns, without waiting for its disk (`forceSync=no`), which is in its favour.
//!
//! `scripts/bench failover [ROUNDS]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use plotters::prelude::*;
use tokio::runtime::Runtime;
use znodefs::CreateMode;
use znodefs::acl::Acl;
use znodefs::client::{Client, ClientOptions};
use znodefs_tests::replicas::{Replicas, ZooKeeperEnsemble};
use znodefs_tests::{Ensemble, wait_until};

/// Clients that write at the same time.
const WRITERS: usize = 8;
/// Acknowledged writes before and after the leader goes.
const WRITES: usize = 300;
/// Longest time for anything.
const LIMIT: Duration = Duration::from_secs(60);
const ROUNDS_DEFAULT: usize = 10;

const SETTINGS: &str = "tickTime=2000\ninitLimit=10\nsyncLimit=5\n";

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

/// All figures of one ensemble and one end, milliseconds.
struct Series {
    name: String,
    gaps_ms: Vec<f64>,
}

impl Series {
    fn median(&self) -> f64 {
        let mut sorted = self.gaps_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn max(&self) -> f64 {
        self.gaps_ms.iter().copied().fold(0.0, f64::max)
    }
}

fn main() -> anyhow::Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("'{text}' is no number of rounds"))?,
        None => ROUNDS_DEFAULT,
    };
    let runtime = Runtime::new()?;
    let mut ensembles: [(&str, Box<dyn Replicas>); 2] = [
        ("znodefs", Box::new(Ensemble::start_with(3, 0, SETTINGS))),
        ("ZooKeeper", Box::new(ZooKeeperEnsemble::start())),
    ];
    let mut series = Vec::new();
    for (name, _) in &ensembles {
        for end in ["kill -9", "SIGTERM"] {
            let name = format!("{name} {end}");
            series.push(Series { name, gaps_ms: Vec::new() });
        }
    }
    for round in 1..=rounds {
        for (place, (_, ensemble)) in ensembles.iter_mut().enumerate() {
            for (number, end) in [End::Killed, End::Stopped].into_iter().enumerate() {
                let gap = measure(&runtime, &mut **ensemble, end);
                let gap_ms = gap.as_secs_f64() * 1e3;
                let one = &mut series[2 * place + number];
                eprintln!("round {round}/{rounds}: {:<18} {gap_ms:8.1} ms", one.name);
                one.gaps_ms.push(gap_ms);
            }
        }
    }
    println!("{:<20} {:>12} {:>12}   (ms without a write, {rounds} rounds)", "", "median", "max");
    for one in &series {
        println!("{:<20} {:>12.1} {:>12.1}", one.name, one.median(), one.max());
    }
    let file = Path::new("target/bench/failover.svg");
    std::fs::create_dir_all("target/bench")?;
    draw(file, &series)?;
    println!("drawn in {}", file.display());
    Ok(())
}

/// Lets a leader go under load; the longest time without an acknowledgement then.
fn measure(runtime: &Runtime, ensemble: &mut dyn Replicas, end: End) -> Duration {
    let load = Load::start(runtime, &ensemble.connect_string());
    load.wait_for(WRITES);
    let leader = ensemble.leader();
    load.wait_for(load.count() + WRITES);
    let moment = now();
    match end {
        End::Killed => ensemble.kill(leader),
        End::Stopped => ensemble.stop(leader),
    }
    load.wait_for(load.count() + WRITES);
    let gap = load.stop(runtime, moment);
    ensemble.start_again(leader);
    gap
}

/// Clients at work, and when each of their writes was acknowledged.
struct Load {
    stops: Arc<AtomicBool>,
    times: Arc<parking_lot::Mutex<Vec<Instant>>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(runtime: &Runtime, servers: &str) -> Load {
        let stops = Arc::new(AtomicBool::new(false));
        let times = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let start = |_| {
            let (stops, times) = (Arc::clone(&stops), Arc::clone(&times));
            let servers = servers.to_string();
            runtime.spawn(async move { write(&servers, &stops, &times).await })
        };
        let writers = (0..WRITERS).map(start).collect();
        Load { stops, times, writers }
    }

    fn count(&self) -> usize {
        self.times.lock().len()
    }

    fn wait_for(&self, count: usize) {
        wait_until("writes flow", LIMIT, || self.count() >= count);
    }

    /// Ends it; the longest pause that was going on, or began, within 100 ms of `moment`.
    fn stop(self, runtime: &Runtime, moment: Instant) -> Duration {
        self.stops.store(true, Ordering::Relaxed);
        for writer in self.writers {
            // One that panicked has told so.
            let _ = runtime.block_on(writer);
        }
        let mut times = std::mem::take(&mut *self.times.lock());
        times.sort();
        let near =
            |pair: &&[Instant]| pair[1] > moment && pair[0] < moment + Duration::from_millis(100);
        let pauses = times.windows(2).filter(near).map(|pair| pair[1] - pair[0].max(moment));
        pauses.max().unwrap_or_default()
    }
}

async fn write(servers: &str, stops: &AtomicBool, times: &parking_lot::Mutex<Vec<Instant>>) {
    let servers = servers.parse().expect("a connect string");
    let options = ClientOptions {
        session_timeout: Duration::from_secs(20),
        connect_timeout: None,
        ..ClientOptions::default()
    };
    let client = Client::connect(&servers, options).await.expect("a session");
    let mode = CreateMode::PersistentSequential;
    while !stops.load(Ordering::Relaxed) {
        let data = Some(Bytes::from_static(&[7; 100]));
        // What was under way when the connection was lost is of unknown outcome: not counted.
        if client.create("/bench-", data, Acl::open(), mode).await.is_ok() {
            times.lock().push(now());
        }
    }
    // Its session ends by itself otherwise.
    let _ = client.close().await;
}

#[allow(clippy::disallowed_methods, reason = "measures in real time")]
fn now() -> Instant {
    Instant::now()
}

/// A line for each series over the rounds, the time on a logarithmic scale.
fn draw(file: &Path, series: &[Series]) -> anyhow::Result<()> {
    let rounds = series.iter().map(|one| one.gaps_ms.len()).max().unwrap_or_default().max(2);
    let most = series.iter().map(Series::max).fold(100.0, f64::max) * 1.5;
    let root = SVGBackend::new(file, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Time without a write when the leader goes", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(1..rounds, (1.0..most).log_scale())?;
    chart.configure_mesh().x_desc("round").y_desc("milliseconds").draw()?;
    let colours = [BLUE, CYAN, RED, MAGENTA];
    for (one, colour) in series.iter().zip(colours) {
        let points = (1..).zip(one.gaps_ms.iter().map(|gap| gap.max(1.0)));
        let label = format!("{}: median {:.0} ms", one.name, one.median());
        chart
            .draw_series(LineSeries::new(points, colour).point_size(3))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
