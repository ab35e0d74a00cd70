//! Seeded sequences of operations against a naive model: a list of batches and what is known of
//! each. Power cuts included, also in the middle of an operation or of the recovery.

use super::*;
use std::collections::BTreeMap;

const SEEDS: u64 = 100;
const STEPS: usize = 250;

/// A batch as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    base_offset: Offset,
    values: Vec<Bytes>,
    timestamps: Vec<WallMs>,
    /// Producer, its epoch and the first sequence.
    sequence: Option<(i64, i16, i32)>,
    durable: bool,
    written: bool,
}

impl Known {
    fn end(&self) -> Offset {
        self.base_offset + self.values.len() as i64
    }
}

/// The log under test beside the model of it.
struct Pair {
    rig: Option<Rig>,
    config: Config,
    prng: Prng,
    batches: Vec<Known>,
    start: Offset,
    durable: Offset,
    high: Offset,
    end: Offset,
    powered: bool,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let config = Config {
            segment_bytes: 600 + prng.below(3000),
            index_interval_bytes: prng.below(500),
            retention_ms: [-1, 500, 5000][prng.below(3) as usize],
            retention_bytes: [-1, 4000][prng.below(2) as usize],
            segment_ms: [100, 1_000_000][prng.below(2) as usize],
            ..Config::default()
        };
        Self {
            rig: Some(Rig::new(config.clone())),
            config,
            prng,
            batches: Vec::new(),
            start: 0,
            durable: 0,
            high: 0,
            end: 0,
            powered: true,
        }
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().unwrap()
    }

    /// Notes a failure that only a power cut may cause.
    fn done<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(error.to_string().contains("power"), "{error}");
                self.powered = false;
                None
            }
        }
    }

    fn step(&mut self) {
        if self.prng.percent(5) {
            let operations = self.prng.below(12);
            self.rig().dir.cut_power_after(operations);
        }
        match self.prng.below(100) {
            0..45 => self.append(),
            45..65 => self.write(),
            65..75 => self.sync(),
            75..80 => self.retain(),
            80..83 => self.delete_records(),
            83..90 => self.look_up(),
            90..93 => self.restart(),
            _ => {
                let ms = self.prng.below(200) as i64;
                self.rig().sleep(ms);
            }
        }
        if !self.powered || self.prng.percent(2) {
            self.cut_power();
        }
        self.compare();
    }

    fn append(&mut self) {
        let count = 1 + self.prng.below(5) as usize;
        let durable = self.prng.percent(50);
        let sequence = self.prng.percent(70).then(|| self.sequence());
        let codec = Codec::ALL[self.prng.below(5) as usize];
        let now_ms = self.rig().now.wall_ms;
        let mut builder = Builder::new(codec);
        let (mut values, mut timestamps) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let value = Bytes::from(format!("{:x}", self.prng.next_u64()));
            let timestamp = now_ms - self.prng.below(300) as i64;
            builder.append(timestamp, None, Some(&value), &[]);
            values.push(value);
            timestamps.push(timestamp);
        }
        if let Some((producer_id, epoch, base_sequence)) = sequence {
            builder.set_producer(producer_id, epoch, base_sequence);
        }
        let expected = self.judge(sequence, count as i32);
        let origin = Origin::Client { durable };
        let appended = self.rig().append(builder.build(), origin);
        match (expected, appended) {
            (Judgement::Next, Ok(appended)) => {
                assert!(!appended.duplicate);
                assert_eq!(appended.base_offset, self.end);
                self.end = appended.offset_end;
                self.batches.push(Known {
                    base_offset: appended.base_offset,
                    values,
                    timestamps,
                    sequence,
                    durable,
                    written: false,
                });
            }
            (Judgement::Duplicate(base_offset, offset_end), Ok(appended)) => {
                assert!(appended.duplicate);
                assert_eq!(
                    (appended.base_offset, appended.offset_end),
                    (base_offset, offset_end)
                );
            }
            (Judgement::Refused, Err(_)) => {}
            (expected, appended) => panic!("{expected:?}, but {appended:?} for {sequence:?}"),
        }
    }

    /// A sequence that is next, known, or wrong.
    fn sequence(&mut self) -> (i64, i16, i32) {
        let producer_id = self.prng.below(3) as i64;
        let of = |batch: &&Known| batch.sequence.is_some_and(|it| it.0 == producer_id);
        let batches: Vec<_> = self.batches.iter().filter(of).cloned().collect();
        let Some(last) = batches.last() else {
            return (producer_id, 0, self.prng.below(3) as i32);
        };
        let (_, epoch, sequence) = last.sequence.unwrap();
        let next = sequence + last.values.len() as i32;
        match self.prng.below(10) {
            0 => (producer_id, epoch + 1, 0),
            1 => (producer_id, epoch, next + 1),
            2 => (producer_id, epoch - 1, next),
            3 | 4 => {
                let back = self.prng.below(batches.len() as u64) as usize;
                batches[back].sequence.unwrap()
            }
            _ => (producer_id, epoch, next),
        }
    }

    /// What Kafka's rules say, by looking at the whole log.
    fn judge(&self, sequence: Option<(i64, i16, i32)>, count: i32) -> Judgement {
        let Some((producer_id, epoch, base_sequence)) = sequence else {
            return Judgement::Next;
        };
        let of = self.batches.iter().filter_map(|batch| {
            let (id, epoch, sequence) = batch.sequence?;
            (id == producer_id).then_some((epoch, sequence, batch))
        });
        let of: Vec<_> = of.collect();
        let Some((newest, _, _)) = of.last() else {
            return Judgement::Next;
        };
        if epoch < *newest {
            return Judgement::Refused;
        }
        let same_epoch = of.iter().rev().take_while(|it| it.0 == epoch).take(5);
        let same_epoch: Vec<_> = same_epoch.collect();
        for (_, sequence, batch) in &same_epoch {
            if *sequence == base_sequence && batch.values.len() as i32 == count {
                return Judgement::Duplicate(batch.base_offset, batch.end());
            }
        }
        let next = same_epoch
            .first()
            .map_or(0, |it| it.1 + it.2.values.len() as i32);
        if base_sequence == next {
            Judgement::Next
        } else {
            Judgement::Refused
        }
    }

    fn write(&mut self) {
        let rig = self.rig();
        let result = rig.log.write_queued(&mut rig.dir, rig.now);
        if self.done(result).is_some() {
            self.wrote();
        }
    }

    fn wrote(&mut self) {
        self.batches
            .iter_mut()
            .for_each(|batch| batch.written = true);
        self.raise_high();
    }

    /// The high watermark by its definition.
    fn raise_high(&mut self) {
        let hidden =
            |batch: &&Known| !batch.written || (batch.durable && batch.end() > self.durable);
        let limit = self.batches.iter().find(hidden);
        let limit = limit.map_or(self.end, |batch| batch.base_offset);
        self.high = self.high.max(limit);
    }

    fn sync(&mut self) {
        let rig = self.rig();
        let Some(plan) = rig.log.sync_plan() else {
            return;
        };
        for file in &plan.files {
            let rig = self.rig();
            let result = rig.dir.sync(file);
            if self.done(result).is_none() {
                return;
            }
        }
        if plan.names {
            let rig = self.rig();
            let result = rig.dir.sync_dir();
            if self.done(result).is_none() {
                return;
            }
        }
        if self.prng.percent(50) {
            self.append();
            self.write();
        }
        if !self.powered {
            return;
        }
        let rig = self.rig();
        let result = rig.log.on_synced(&mut rig.dir, plan.offset_end);
        self.durable = plan.offset_end;
        if self.done(result).is_some() {
            self.raise_high();
        }
    }

    fn retain(&mut self) {
        let rig = self.rig();
        let result = rig.log.retain(&mut rig.dir, rig.now);
        let Some(retained) = self.done(result) else {
            return;
        };
        self.wrote();
        let start = self.rig().log.log_start_offset();
        assert!(start >= self.start && start <= self.high);
        let now_ms = self.rig().now.wall_ms;
        let (retention_ms, bytes) = (self.config.retention_ms, self.config.retention_bytes);
        for batch in self
            .batches
            .iter()
            .filter(|it| (self.start..start).contains(&it.base_offset))
        {
            let latest = batch.timestamps.iter().max().unwrap();
            assert!(bytes >= 0 || (retention_ms >= 0 && now_ms - latest > retention_ms));
        }
        if bytes >= 0 && retention_ms < 0 && retained.segments > 0 && start > self.start {
            assert!(self.rig().log.size_bytes() >= bytes as u64);
        }
        self.start = start;
    }

    fn delete_records(&mut self) {
        let before = self.prng.below(self.high as u64 + 1) as i64;
        let rig = self.rig();
        let result = rig.log.delete_records(&mut rig.dir, before);
        if let Some(start) = self.done(result) {
            self.start = self.start.max(before);
            assert_eq!(start, self.start);
        }
    }

    /// Asks for times and offsets and compares the answers.
    fn look_up(&mut self) {
        let (start, high, now_ms) = (self.start, self.high, self.rig().now.wall_ms);
        let asked = now_ms - self.prng.below(2000) as i64;
        let records = self.batches.iter();
        let mut records = records
            .flat_map(|batch| (batch.base_offset..).zip(&batch.timestamps))
            .filter(|record| (start..high).contains(&record.0));
        let expected = records.find(|record| *record.1 >= asked).map(|it| it.0);
        let rig = self.rig();
        let found = rig.log.offset_for_timestamp(&mut rig.dir, asked).unwrap();
        assert_eq!(found.map(|it| it.0), expected, "{asked}");
        for _ in 0..10 {
            if start == high {
                return;
            }
            let offset = start + self.prng.below((high - start) as u64) as i64;
            let bytes_max = self.prng.below(2000);
            let rig = self.rig();
            let extent = rig.read(offset, bytes_max).unwrap();
            let batches = rig.batches(&extent);
            let first = batches[0].0;
            assert!((first.base_offset..first.next_offset()).contains(&offset));
            assert!(batches.last().unwrap().0.next_offset() <= high);
        }
    }

    /// Clean stop, or death of the process alone.
    fn restart(&mut self) {
        let mut rig = self.rig.take().unwrap();
        let clean = self.prng.percent(50);
        if clean {
            let result = rig.log.close(&mut rig.dir, rig.now);
            let result = result.and_then(|()| rig.dir.sync_all());
            if self.done(result).is_none() {
                self.rig = Some(rig);
                return;
            }
            self.wrote();
        } else {
            self.batches.retain(|batch| batch.written);
        }
        rig.dir.restart_process();
        self.reopen(rig, clean);
    }

    /// Everything stops, in whatever state the disk is.
    fn cut_power(&mut self) {
        let mut rig = self.rig.take().unwrap();
        rig.dir.restart_machine(&mut self.prng);
        self.powered = true;
        self.reopen(rig, false);
    }

    fn reopen(&mut self, rig: Rig, mut clean: bool) {
        let (mut dir, now) = (rig.dir, rig.now);
        if self.prng.percent(30) {
            dir.cut_power_after(self.prng.below(15));
            let mut report = Report::default();
            let opening = Opening {
                now,
                clean,
                leader_epoch: 0,
                topic_id: TOPIC,
            };
            let synced = match clean {
                true => Ok(()),
                false => dir.sync_all().map_err(OpenError::from),
            };
            let opened = synced
                .and_then(|()| Log::open(&mut dir, self.config.clone(), opening, &mut report));
            if let Err(error) = opened {
                let why = error.to_string();
                assert!(
                    why.contains("power") || why.contains(NEVER_DURABLE),
                    "{why}"
                );
            }
            dir.restart_machine(&mut self.prng);
            clean = false;
        }
        let rig = match Rig::open_at(dir, self.config.clone(), clean, now) {
            Err(why) if why.contains(NEVER_DURABLE) => {
                assert_eq!((self.durable, self.start), (0, 0));
                let dir = TestDir::default();
                Rig::open_at(dir, self.config.clone(), clean, now).unwrap()
            }
            opened => opened.unwrap(),
        };
        self.recovered(&rig.log);
        self.rig = Some(rig);
    }

    /// Takes over what survived, if that is allowed.
    fn recovered(&mut self, log: &Log) {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert!(
            end >= self.durable,
            "{end} < {}: durable data is lost",
            self.durable
        );
        // An interrupted deletion may have happened.
        assert!(start >= self.start && start <= self.high.max(end));
        self.batches.retain(|batch| batch.end() <= end);
        let last_end = self.batches.last().map_or(end, |batch| batch.end());
        assert!(
            last_end == end || start == end,
            "the end is that of a batch"
        );
        if start == end {
            // It may have begun anew beyond what it had lost: the producers tell how much that is.
            self.batches.retain(|batch| {
                let known = |id| log.producers.iter().find(|producer| producer.0 == id);
                batch.sequence.is_none_or(|(id, ..)| {
                    let mut batches = known(id).into_iter().flat_map(|it| &it.1.batches);
                    batches.any(|it| it.base_offset() == batch.base_offset)
                })
            });
        }
        self.batches
            .iter_mut()
            .for_each(|batch| batch.written = true);
        (self.start, self.end, self.durable, self.high) = (start, end, end, end);
    }

    fn compare(&mut self) {
        let (start, end, durable, high) = (self.start, self.end, self.durable, self.high);
        let check_all = self.prng.percent(20);
        let rig = self.rig();
        let log = &rig.log;
        assert_eq!(log.log_start_offset(), start);
        assert_eq!(log.log_end_offset(), end);
        assert_eq!(log.durable_offset(), durable);
        assert_eq!(log.high_watermark(), high);
        log.check();
        if !check_all {
            return;
        }
        let records = rig.records(start, 700);
        let known = self.batches.iter();
        let known = known.flat_map(|batch| (batch.base_offset..).zip(batch.values.clone()));
        let known: Vec<_> = known.filter(|it| (start..high).contains(&it.0)).collect();
        assert_eq!(records, known);
    }
}

/// What is said of files that a crash left before any of them was durable.
const NEVER_DURABLE: &str = "do not tell whose they are";

#[derive(Debug)]
enum Judgement {
    Next,
    Duplicate(Offset, Offset),
    Refused,
}

#[test]
fn any_sequence_of_operations_agrees_with_the_model() {
    let mut ends = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut pair = Pair::new(seed);
        for step in 0..STEPS {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.step()));
            if let Err(cause) = result {
                eprintln!("seed {seed}, step {step}");
                std::panic::resume_unwind(cause);
            }
        }
        *ends.entry(pair.end / 50).or_insert(0) += 1;
    }
    assert!(ends.len() > 2, "the sequences differ");
}
