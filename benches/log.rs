//! What the log itself costs, on a directory in memory: an append with its write, and finding the
//! position of an offset by the index of the active and of a closed segment. Run with `cargo bench
//! --bench log`; under `cargo test --benches` every case runs once, with tiny input.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, IoSlice};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::dir::{Dir, File, FileKind};
use forebay::base::prng::Prng;
use forebay::base::{Mono, Now, TopicId};
use forebay::batch::{Builder, Codec};
use forebay::log::{Config, Log, Opening, Origin, Report};

const NOW: Now = Now {
    mono: Mono(1),
    wall_ms: 1_700_000_000_000,
};

/// Files as byte vectors; syncing is free.
#[derive(Clone, Default)]
struct MemoryDir(BTreeMap<String, Vec<u8>>);

impl MemoryDir {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(name).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Dir for MemoryDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let files = self.0.iter();
        Ok(files
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        match self.0.insert(name.to_owned(), Vec::new()) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn open(&mut self, _name: &str) -> io::Result<File> {
        Ok(File::new(FileKind::Simulated(0)))
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self
            .file(name)?
            .get(position as usize..)
            .unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&mut self, name: &str, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let file = self.file(name)?;
        file.truncate(position as usize);
        slices
            .iter()
            .for_each(|slice| file.extend_from_slice(slice));
        Ok(())
    }

    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.0.insert(name.to_owned(), contents.to_vec());
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.truncate(length as usize);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name);
        Ok(())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn names(&mut self) -> io::Result<Vec<File>> {
        Ok(Vec::new())
    }
}

/// Bytes of the log that is read: a segment of Kafka's default size, or little as a test, when
/// cargo does not pass `--bench`.
fn log_bytes() -> u64 {
    let bench = std::env::args().any(|argument| argument == "--bench");
    if bench { 256 << 20 } else { 256 << 10 }
}

fn open(dir: &mut MemoryDir, config: Config) -> Log {
    let opening = Opening {
        now: NOW,
        clean: true,
        leader_epoch: 0,
        topic_id: TopicId::ZERO,
    };
    Log::open(dir, config, opening, &mut Report::default()).expect("memory does not fail")
}

/// A batch of 16 records of 1 KiB.
fn batch() -> Bytes {
    let mut builder = Builder::new(Codec::None);
    for _ in 0..16 {
        builder.append(NOW.wall_ms, Some(b"some-key"), Some(&[0x5a; 1024]), &[]);
    }
    builder.build()
}

fn append(criterion: &mut Criterion) {
    let batch = batch();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Bytes(batch.len() as u64));
    let origin = Origin::Client { durable: true };
    group.bench_function("one batch, queued", |bencher| {
        let mut dir = MemoryDir::default();
        let config = Config {
            segment_bytes: i32::MAX as u64,
            ..Config::default()
        };
        bencher.iter_batched_ref(
            || open(&mut dir, config.clone()),
            |log| {
                log.append(NOW, batch.clone(), origin)
                    .expect("the batch is good")
            },
            BatchSize::NumIterations(1000),
        );
    });
    group.bench_function("one batch, written", |bencher| {
        let mut dir = MemoryDir::default();
        let config = Config {
            segment_bytes: 1 << 20,
            retention_bytes: 1 << 20,
            ..Config::default()
        };
        let mut log = open(&mut dir, config);
        bencher.iter(|| {
            log.append(NOW, batch.clone(), origin)
                .expect("the batch is good");
            log.write_queued(&mut dir, NOW)
                .expect("memory does not fail");
            log.on_synced(&mut dir, log.log_end_offset())
                .expect("memory does not fail");
            log.retain(&mut dir, NOW).expect("memory does not fail")
        });
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let batch = batch();
    let mut group = criterion.benchmark_group("lookup");
    for (name, segment_bytes) in [
        ("active segment", u64::MAX),
        ("closed segments", log_bytes() / 4),
    ] {
        let mut dir = MemoryDir::default();
        let config = Config {
            segment_bytes,
            ..Config::default()
        };
        let mut log = open(&mut dir, config);
        while log.size_bytes() < log_bytes() {
            for _ in 0..16 {
                let origin = Origin::Client { durable: false };
                log.append(NOW, batch.clone(), origin)
                    .expect("the batch is good");
            }
            log.write_queued(&mut dir, NOW)
                .expect("memory does not fail");
        }
        let end = log.high_watermark() as u64;
        let mut prng = Prng::new(1);
        group.bench_function(format!("random offset, {name}"), |bencher| {
            bencher.iter(|| {
                let offset = prng.below(end) as i64;
                let extent = log.read(&mut dir, black_box(offset), 1 << 20, true);
                extent.expect("the offset is there")
            });
        });
        let mut offset = 0;
        group.bench_function(format!("next extent, {name}"), |bencher| {
            bencher.iter(|| {
                let extent = log.read(&mut dir, black_box(offset), 17_000, true);
                offset = (offset + 16) % end as i64;
                extent.expect("the offset is there")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, lookup);
criterion_main!(benches);
