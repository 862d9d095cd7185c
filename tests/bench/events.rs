//! How fast changes made elsewhere arrive, and what caching gives: `scripts/bench events`.
//!
//! It prints medians and 99th percentiles and draws `target/bench/events.svg`. Nothing is asserted:
//! it measures the machine that it runs on as well.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plotters::prelude::*;
use znodefs_tests::{Directory, Mount, Server, WireClient, Znoded};

/// How many changes each latency is measured with.
const ROUNDS: usize = 2000;

/// How long each kind of look is repeated.
const LOOKING: Duration = Duration::from_secs(2);

/// How long a change may take until the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let server = Znoded::start();
    let here = Mount::of(&server.address(), &[]);
    let there = Mount::of(&server.address(), &[]);
    let without = Mount::of(&server.address(), &["-o", "nocache"]);
    there.sh("mkdir d; for n in $(seq 1 100); do head -c 1024 /dev/zero > d/f$n; done").ok();
    let mut client = WireClient::connect(&server.address());
    println!("Latencies on loopback, {ROUNDS} changes each, one at a time:");
    let curves = [
        ("set: commit to inotifywait's line", sets(&here, &mut client)?),
        ("create: commit to inotifywait's line", creations(&here, &mut client)?),
        ("set: commit to the reader on another mount", versions(&here, &mut client)?),
    ];
    for (name, times) in &curves {
        let [median, high, worst] = [0.5, 0.99, 1.0].map(|part| milliseconds(times, part));
        println!("  {name:<45} median {median:.3} ms, 99 % {high:.3} ms, worst {worst:.3} ms");
    }
    let plot = draw(&curves)?;
    println!("Looks per second at what does not change, one thread:");
    let tmpfs = tempfile::Builder::new().prefix("znodefs-bench-").tempdir_in("/dev/shm");
    let tmpfs = tmpfs.context("a directory in /dev/shm")?;
    let copy = format!("cp -r {}/d {}", there.display(), tmpfs.path().display());
    there.sh(&copy).ok();
    println!("  {:<24} {:>12} {:>12} {:>12}", "", "cached", "nocache", "tmpfs");
    for (name, look) in LOOKS {
        let rates = [&*here, &*without, tmpfs.path()].map(|root| rate(root, *look));
        println!("  {name:<24} {:>12.0} {:>12.0} {:>12.0}", rates[0], rates[1], rates[2]);
    }
    println!("The latencies' distribution is drawn in {}", plot.display());
    Ok(())
}

/// `inotifywait -m`, each line with the time when it came.
struct Events {
    process: Child,
    lines: Receiver<(Instant, String)>,
    _log: Directory,
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

impl Events {
    fn of(path: &Path, kind: &str) -> Result<Events> {
        let log = Directory::new();
        let errors = fs::File::create(log.join("errors"))?;
        let mut command = Command::new("inotifywait");
        command.args(["-m", "--format", "%e %f", "-e", kind]).arg(path);
        let mut process = command.stdout(Stdio::piped()).stderr(errors).spawn()?;
        let output = process.stdout.take().context("its output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((now(), line)).is_err() {
                    return;
                }
            }
        });
        let errors = log.join("errors");
        let watches = || fs::read_to_string(&errors).is_ok_and(|text| text.contains("established"));
        znodefs_tests::wait_until("inotifywait watches", LIMIT, watches);
        Ok(Events { process, lines, _log: log })
    }

    fn next(&self) -> Result<Instant> {
        Ok(self.lines.recv_timeout(LIMIT).context("an event did not come")?.0)
    }

    /// Takes what is left of the change before.
    fn drain(&self) {
        while self.lines.try_recv().is_ok() {}
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sets(here: &Path, client: &mut WireClient) -> Result<Vec<Duration>> {
    client.create("/set", Some(b"0"));
    let events = Events::of(&here.join("set"), "modify")?;
    (1..=ROUNDS)
        .map(|number| {
            events.drain();
            client.set("/set", Some(number.to_string().as_bytes()));
            let committed = now();
            Ok(events.next()?.saturating_duration_since(committed))
        })
        .collect()
}

fn creations(here: &Path, client: &mut WireClient) -> Result<Vec<Duration>> {
    client.create("/new", None);
    let events = Events::of(&here.join("new"), "create")?;
    (1..=ROUNDS)
        .map(|number| {
            client.create(&format!("/new/n{number}"), Some(b"x"));
            let committed = now();
            Ok(events.next()?.saturating_duration_since(committed))
        })
        .collect()
}

/// A reader that reads all the time.
fn versions(here: &Path, client: &mut WireClient) -> Result<Vec<Duration>> {
    client.create("/version", Some(b"0"));
    let path = here.join("version");
    let (sender, seen) = channel();
    let reader = std::thread::spawn(move || -> Result<()> {
        let mut newest = 0;
        while newest < ROUNDS {
            let number = fs::read_to_string(&path)?.parse()?;
            ensure!(number >= newest, "{number} after {newest}");
            if number > newest {
                newest = number;
                sender.send((now(), number))?;
            }
        }
        Ok(())
    });
    let mut times = Vec::with_capacity(ROUNDS);
    for number in 1..=ROUNDS {
        client.set("/version", Some(number.to_string().as_bytes()));
        let committed = now();
        let (when, version) = seen.recv_timeout(LIMIT).context("a version was not seen")?;
        ensure!(version == number, "{version} instead of {number}");
        times.push(when.saturating_duration_since(committed));
    }
    reader.join().expect("the reader")?;
    Ok(times)
}

fn milliseconds(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index].as_secs_f64() * 1000.0
}

/// One look at a directory with the directory `d` of a hundred files in it.
type Look = fn(&Path, usize);

const LOOKS: &[(&str, Look)] = &[
    ("stat", |root, turn| {
        fs::metadata(root.join(format!("d/f{}", turn % 100 + 1))).expect("a file");
    }),
    ("an absent name", |root, _| {
        assert!(!root.join("d/absent").exists());
    }),
    ("a listing of 100", |root, _| {
        assert_eq!(fs::read_dir(root.join("d")).expect("the directory").count(), 100);
    }),
    ("cat of 1 KiB", |root, turn| {
        let path = root.join(format!("d/f{}", turn % 100 + 1));
        assert_eq!(fs::read(path).expect("a file").len(), 1024);
    }),
];

fn rate(root: &Path, look: Look) -> f64 {
    (0..200).for_each(|turn| look(root, turn));
    let start = now();
    let mut turns = 0;
    while start.elapsed() < LOOKING {
        look(root, turns);
        turns += 1;
    }
    turns as f64 / start.elapsed().as_secs_f64()
}

/// Draws which part of the changes had arrived after how long.
fn draw(curves: &[(&str, Vec<Duration>)]) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&directory)?;
    let path = directory.canonicalize()?.join("events.svg");
    let longest = curves.iter().map(|(_, times)| milliseconds(times, 0.995)).fold(0.1, f64::max);
    let drawing = path.clone();
    let root = SVGBackend::new(&drawing, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption("Changes that had arrived after so long", ("sans-serif", 20))
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..longest, 0.0..100.0)?;
    chart.configure_mesh().x_desc("milliseconds").y_desc("%").draw()?;
    for (index, (name, times)) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let points = (0..=200).map(|step| {
            let part = f64::from(step) / 200.0;
            (milliseconds(times, part).min(longest), part * 100.0)
        });
        let line = LineSeries::new(points, color.stroke_width(2));
        chart
            .draw_series(line)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(path)
}
