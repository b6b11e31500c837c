//! Log records made from a seed: the same options give the same bytes, on every machine.
//!
//! Owns: app ids and how often each occurs, the text of a record, which partition and time a record has.
//! Does not own: sending.

use std::io::Write as _;

/// Which records there are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The first record's `seq`; records count up from it.
    pub first_seq: u64,
    pub records: u64,
    pub apps: usize,
    pub partitions: u64,
    pub seed: u64,
    /// Name of each app id, most frequent first.
    pub names: Vec<String>,
    /// Share of the ids up to and including this one, scaled to 2^64.
    cumulative: Vec<u64>,
}

const SERVICES: [&str; 12] = [
    "payments",
    "orders",
    "catalog",
    "checkout",
    "inventory",
    "shipping",
    "search",
    "accounts",
    "gateway",
    "billing",
    "notify",
    "reports",
];
const LEVELS: [&str; 16] = [
    "INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "DEBUG", "WARN",
    "WARN", "ERROR",
];
const CLASSES: [&str; 8] = [
    "http.RequestFilter",
    "db.ConnectionPool",
    "cache.RedisLoader",
    "queue.Consumer",
    "auth.TokenVerifier",
    "http.ClientRetry",
    "jobs.Scheduler",
    "domain.LedgerService",
];
const VERBS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const PATHS: [&str; 6] =
    ["/api/v2/items", "/api/v2/users", "/internal/sync", "/api/v1/prices", "/health", "/api/v2/baskets"];

impl Plan {
    /// `zipf` is the exponent of the distribution of app ids: 0 gives all the same share.
    pub fn new(first_seq: u64, records: u64, apps: usize, zipf: f64, partitions: u64, seed: u64) -> Self {
        let names = (0..apps).map(|rank| format!("{}-{rank:03}", SERVICES[rank % SERVICES.len()])).collect();
        let weights: Vec<f64> = (1..=apps).map(|rank| (rank as f64).powf(-zipf)).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulative = weights.iter().map(|weight| {
            sum += weight / total;
            (sum * u64::MAX as f64) as u64
        });
        let cumulative = cumulative.collect();
        Plan { first_seq, records, apps, partitions, seed, names, cumulative }
    }

    /// Records of one partition, which are those whose `seq` leaves this remainder.
    pub fn records_of(&self, partition: u64) -> u64 {
        (self.records + self.partitions - 1 - partition) / self.partitions
    }

    /// `seq` of the nth record of a partition.
    pub fn seq(&self, partition: u64, nth: u64) -> u64 {
        self.first_seq + nth * self.partitions + partition
    }

    fn app(&self, random: u64) -> &str {
        let rank = self.cumulative.partition_point(|&below| below < random);
        &self.names[rank.min(self.apps - 1)]
    }

    /// Appends the record and returns its app id. `ts` is the text of its time.
    pub fn write(&self, out: &mut Vec<u8>, seq: u64, ts: &str) -> &str {
        let mut random = Random::new(self.seed, seq);
        let app = self.app(random.next());
        let bits = random.next();
        let pick = |shift: u32, count: usize| ((bits >> shift) as usize) % count;
        let service = app.split('-').next().unwrap_or(app);
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            r#"{{"ts":"{ts}","app_id":"{app}","level":"{}","logger":"com.example.{service}.{}","thread":"worker-{}","msg":""#,
            LEVELS[pick(0, LEVELS.len())],
            CLASSES[pick(8, CLASSES.len())],
            pick(16, 64),
        );
        let number = random.next();
        let _ = match pick(24, 8) {
            0 => write!(
                out,
                "lease of pool main renewed after {} ms, {} connections idle",
                number % 4000,
                number >> 40 & 63
            ),
            1 => write!(
                out,
                "loaded {} rows for key {:08x} from replica {}",
                number % 900,
                number >> 32,
                number >> 20 & 3
            ),
            2 => write!(
                out,
                "retry {} of 5 towards upstream {service}-{}: timed out",
                1 + (number & 3),
                number >> 8 & 15
            ),
            _ => write!(
                out,
                "{} {}/{} status={} bytes={} took={}us",
                VERBS[pick(32, VERBS.len())],
                PATHS[pick(40, PATHS.len())],
                number % 1_000_000,
                [200, 200, 200, 201, 204, 404, 500][pick(48, 7)],
                number >> 24 & 0xffff,
                number >> 44,
            ),
        };
        let _ = write!(out, r#"","trace_id":"{:016x}{:016x}","seq":{seq}}}"#, random.next(), random.next());
        app
    }
}

/// SplitMix64, a new one per record: a record depends on nothing but the seed and its `seq`.
struct Random(u64);

impl Random {
    fn new(seed: u64, seq: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seq.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
