//! What a batch costs: the check at produce (head and CRC), the walk over its records, building
//! and reading. Records have 1 KiB values with little redundancy, as orders have.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::prng::Prng;
use forebay::batch::{self, Builder, Codec, Header, ValidationRules};

const NOW: i64 = 1_800_000_000_000;
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

fn values(count: usize) -> Vec<Vec<u8>> {
    let mut prng = Prng::new(1);
    let mut value = || -> String {
        (0..64)
            .map(|_| format!("{:016x}", prng.next_u64()))
            .collect()
    };
    (0..count).map(|_| value().into_bytes()).collect()
}

fn build(codec: Codec, values: &[Vec<u8>]) -> Bytes {
    let mut builder = Builder::new(codec);
    builder.set_producer(1, 0, 0);
    for value in values {
        builder.append(NOW, Some(b"user-000001"), Some(value), &[]);
    }
    builder.build()
}

fn produce(criterion: &mut Criterion) {
    let rules = ValidationRules {
        size_bytes_max: usize::MAX,
        ..ValidationRules::default()
    };
    let mut group = criterion.benchmark_group("produce");
    for count in [1, 16, 256, 1024] {
        let bytes = build(Codec::None, &values(count));
        let header = Header::parse(&bytes).expect("the builder writes heads");
        let body = bytes.slice(bytes.len() - header.body_bytes()..);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("crc", count), |bencher| {
            bencher.iter(|| header.computed_crc(black_box(&body)));
        });
        group.bench_function(BenchmarkId::new("validate", count), |bencher| {
            bencher.iter(|| batch::validate(black_box(&bytes), &rules, NOW));
        });
        group.bench_function(BenchmarkId::new("check_records", count), |bencher| {
            bencher.iter(|| batch::check_records(&header, black_box(&body), &rules, NOW));
        });
    }
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let values = values(256);
    let mut group = criterion.benchmark_group("codec");
    for codec in Codec::ALL {
        let bytes = build(codec, &values);
        let header = Header::parse(&bytes).expect("the builder writes heads");
        let body = bytes.slice(bytes.len() - header.body_bytes()..);
        group.throughput(Throughput::Elements(values.len() as u64));
        group.bench_function(BenchmarkId::new("build", codec), |bencher| {
            bencher.iter(|| build(codec, black_box(&values)));
        });
        group.bench_function(BenchmarkId::new("iterate", codec), |bencher| {
            bencher.iter(|| {
                let records = batch::records(&header, black_box(&body), OUTPUT_BYTES_MAX);
                records.expect("the builder writes sections").count()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, produce, codecs);
criterion_main!(benches);
