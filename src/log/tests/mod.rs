//! Tests of the whole log on a directory in memory, by part; [`Rig`] plays the shell.

mod append;
mod faults;
mod golden;
mod model;
mod power;
mod read;
mod recovery;
mod retention;

use super::test_dir::TestDir;
use super::*;
use crate::base::prng::Prng;
use crate::batch::{self, Builder, Codec, Header};
use bytes::Bytes;

const START_MS: WallMs = 1_700_000_000_000;
const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(77));
const CLIENT: Origin = Origin::Client { durable: true };
const RELAXED: Origin = Origin::Client { durable: false };

/// Small segments and a dense index, so that short tests reach every branch.
fn small() -> Config {
    Config {
        segment_bytes: 1000,
        index_interval_bytes: 200,
        retention_ms: -1,
        ..Config::default()
    }
}

/// A log with its directory and a clock.
struct Rig {
    dir: TestDir,
    log: Log,
    now: Now,
    report: Report,
}

impl Rig {
    fn new(config: Config) -> Self {
        Self::open(TestDir::default(), config, false).unwrap()
    }

    fn open(dir: TestDir, config: Config, clean: bool) -> Result<Self, String> {
        let now = Now {
            mono: Mono(1),
            wall_ms: START_MS,
        };
        Self::open_at(dir, config, clean, now)
    }

    fn open_at(mut dir: TestDir, config: Config, clean: bool, now: Now) -> Result<Self, String> {
        let mut report = Report::default();
        if !clean {
            dir.sync_all().map_err(|error| error.to_string())?;
        }
        let opening = Opening {
            now,
            clean,
            leader_epoch: 0,
            topic_id: TOPIC,
        };
        let log = Log::open(&mut dir, config, opening, &mut report);
        let log = log.map_err(|error| error.to_string())?;
        log.check();
        assert_eq!(
            log.high_watermark(),
            log.log_end_offset().max(log.log_start_offset())
        );
        assert_eq!(log.durable_offset(), log.log_end_offset());
        Ok(Self {
            dir,
            log,
            now,
            report,
        })
    }

    fn append(&mut self, batch: Bytes, origin: Origin) -> Result<Appended, AppendError> {
        let appended = self.log.append(self.now, batch, origin);
        self.log.check();
        appended
    }

    /// Appends a batch of plain records and writes it.
    fn put(&mut self, count: usize) -> Appended {
        let batch = plain(count, self.now.wall_ms);
        let appended = self.append(batch, RELAXED).unwrap();
        self.write();
        appended
    }

    fn write(&mut self) -> bool {
        let written = self.log.write_queued(&mut self.dir, self.now).unwrap();
        self.log.check();
        written
    }

    fn sync(&mut self) {
        if let Some(plan) = self.log.sync_plan() {
            for file in &plan.files {
                self.dir.sync(file).unwrap();
            }
            if plan.names {
                self.dir.sync_dir().unwrap();
            }
            self.log.on_synced(&mut self.dir, plan.offset_end).unwrap();
            self.log.check();
        }
    }

    fn sleep(&mut self, ms: i64) {
        self.now.wall_ms += ms;
        self.now.mono = self.now.mono.plus_ms(ms);
    }

    fn retain(&mut self) -> Retained {
        let retained = self.log.retain(&mut self.dir, self.now).unwrap();
        self.log.check();
        retained
    }

    fn close(mut self) -> TestDir {
        self.log.close(&mut self.dir, self.now).unwrap();
        self.dir.sync_all().unwrap();
        self.dir
    }

    /// Clean stop and start.
    fn reopen(self) -> Self {
        let (config, now) = (self.log.config.clone(), self.now);
        let rig = Self::open_at(self.close(), config, true, now).unwrap();
        assert_eq!(rig.report.repairs, Vec::<String>::new());
        rig
    }

    /// The process dies and starts again.
    fn kill(mut self) -> Result<Self, String> {
        self.dir.restart_process();
        Self::open_at(self.dir, self.log.config, false, self.now)
    }

    fn read(&mut self, offset: Offset, bytes_max: u64) -> Option<Extent> {
        let extent = self.log.read(&mut self.dir, offset, bytes_max, true);
        self.log.check();
        extent.unwrap()
    }

    /// The batches of an extent.
    fn batches(&self, extent: &Extent) -> Vec<(Header, Bytes)> {
        let contents = Bytes::from(self.dir.contents(&extent.file));
        let start = extent.position as usize;
        let bytes = contents.slice(start..start + extent.length as usize);
        let batches: Vec<_> = batch::batches(bytes).map(|batch| batch.unwrap()).collect();
        let sizes = batches.iter().map(|(header, _)| header.size_bytes() as u64);
        assert_eq!(
            sizes.sum::<u64>(),
            extent.length,
            "extents hold whole batches"
        );
        batches
    }

    /// Every visible record's offset and value, read from `offset` on.
    fn records(&mut self, mut offset: Offset, bytes_max: u64) -> Vec<(Offset, Bytes)> {
        let mut records = Vec::new();
        while let Some(extent) = self.read(offset, bytes_max) {
            for (header, body) in self.batches(&extent) {
                header.check_crc(&body).unwrap();
                for record in batch::records(&header, &body, usize::MAX - 1).unwrap() {
                    let record = record.unwrap();
                    records.push((record.offset, record.value.unwrap_or_default()));
                }
                offset = header.next_offset();
            }
        }
        records.retain(|record| record.0 >= self.log.log_start_offset());
        records
    }

    /// Names and sizes of the segments' files.
    fn segment_files(&self) -> Vec<String> {
        let mut names = self.dir.file_names();
        names.retain(|name| name.ends_with(".log"));
        names
    }
}

/// `count` records of about 20 bytes with this timestamp.
fn plain(count: usize, timestamp: WallMs) -> Bytes {
    let mut builder = Builder::new(Codec::None);
    for record in 0..count {
        builder.append(
            timestamp,
            None,
            Some(format!("value-{record:06}").as_bytes()),
            &[],
        );
    }
    builder.build()
}

/// An idempotent producer's batch.
fn sequenced(producer_id: i64, epoch: i16, base_sequence: i32, count: usize) -> Bytes {
    let mut builder = Builder::new(Codec::None);
    builder.set_producer(producer_id, epoch, base_sequence);
    for record in 0..count {
        let value = format!("{producer_id}-{}", base_sequence as usize + record);
        builder.append(START_MS, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// What must be the same after a restart.
fn state(log: &Log) -> String {
    let producers = log.producers.iter();
    let producers: Vec<_> = producers
        .map(|(id, producer)| (id, producer.epoch, producer.batches.clone()))
        .collect();
    let mut segments = log.segments.clone();
    for segment in &mut segments {
        // Not kept, or not while closed.
        segment.written_ms = 0;
        segment.created_ms = 0;
        if let index::Index::File(_) = segment.index {
            segment.first_timestamp = None;
            segment.bytes_since_entry = 0;
        } else if let index::Index::Memory(index) = &mut segment.index {
            // The stop adds an entry for the largest timestamp.
            index.times.clear();
        }
    }
    let bounds = (
        log.log_start_offset(),
        log.log_end_offset(),
        log.leader_epoch,
    );
    format!("{:#?}", (bounds, producers, &log.epochs, segments))
}
