//! A broker that does what a test tells it, on a real socket: for answers that a real one gives once in a year.
//!
//! Owns: framing and defaults, on the messages of kafka-protocol. Does not own: what is tested.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::RecordBatchDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use uuid::Uuid;

pub const TOPIC: &str = "t";

/// What a fetch gets instead of the log.
pub enum Reply {
    Answer(Box<dyn FnOnce(&FetchRequest) -> FetchResponse + Send>),
    /// These bytes as they are, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, ever: the connection stays open.
    Hang,
    /// The log, in pieces with this pause before each.
    Slow(Duration),
}

/// What a write gets instead of being taken.
pub enum WriteReply {
    Error(i16),
    /// It is taken, and the connection closed instead of an answer.
    Lost,
}

/// What all brokers of a cluster share.
pub struct State {
    pub topic_id: Uuid,
    pub leader: i32,
    pub leader_epoch: i32,
    /// Encoded batches by (first, last) offset.
    pub log: Vec<(i64, i64, Vec<u8>)>,
    pub log_start: i64,
    /// By broker: what its next fetches get.
    pub replies: BTreeMap<i32, VecDeque<Reply>>,
    /// (broker, request).
    pub fetches: Vec<(i32, FetchRequest)>,
    /// When each of them came.
    pub fetched_at: Vec<Instant>,
    pub metadata_asked: usize,
    pub addresses: BTreeMap<i32, u16>,
    /// Highest versions of ApiVersions, Metadata, ListOffsets, Fetch.
    pub versions: [i16; 4],
    pub sessions: bool,
    /// (leader epoch, first offset), ascending; `None`: the brokers don't know the question.
    pub epochs: Option<Vec<(i32, i64)>>,
    /// (broker, current leader epoch, epoch asked for).
    pub epochs_asked: Vec<(i32, i32, i32)>,
    /// What the next writes get.
    pub write_replies: VecDeque<WriteReply>,
    /// The values of each batch that was taken.
    pub written: Vec<Vec<Vec<u8>>>,
    /// A batch with this value is not taken, for this error.
    pub refused_value: Option<(Vec<u8>, i16)>,
}

pub struct FakeCluster {
    pub state: Arc<Mutex<State>>,
}

impl FakeCluster {
    /// Starts brokers 1 to `count`; broker 1 leads the one partition.
    pub async fn start(count: i32) -> Self {
        let state = Arc::new(Mutex::new(State {
            topic_id: Uuid::from_bytes([1; 16]),
            leader: 1,
            leader_epoch: 5,
            log: Vec::new(),
            log_start: 0,
            replies: BTreeMap::new(),
            fetches: Vec::new(),
            fetched_at: Vec::new(),
            metadata_asked: 0,
            addresses: BTreeMap::new(),
            versions: [3, 13, 8, 17],
            sessions: true,
            epochs: None,
            epochs_asked: Vec::new(),
            write_replies: VecDeque::new(),
            written: Vec::new(),
            refused_value: None,
        }));
        for broker in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            state.lock().unwrap().addresses.insert(broker, port);
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(Arc::clone(&state), broker, stream));
                }
            });
        }
        Self { state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.state.lock().unwrap().addresses[&1])
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn reply(&self, broker: i32, answer: impl FnOnce(&FetchRequest) -> FetchResponse + Send + 'static) {
        self.with(|state| state.replies.entry(broker).or_default().push_back(Reply::Answer(Box::new(answer))));
    }
}

/// An answer with this for partition 0.
pub fn partition(request: &FetchRequest, data: PartitionData) -> FetchResponse {
    let (topic, id) = request.topics.first().map_or_else(
        || (TopicName(StrBytes::from_static_str(TOPIC)), Uuid::from_bytes([1; 16])),
        |topic| (topic.topic.clone(), topic.topic_id),
    );
    let topic = FetchableTopicResponse::default().with_topic(topic).with_topic_id(id).with_partitions(vec![data]);
    FetchResponse::default().with_responses(vec![topic])
}

pub fn error(code: i16) -> PartitionData {
    PartitionData::default()
        .with_error_code(code)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(Some(Vec::new()))
        .with_records(Some(Bytes::new()))
}

async fn serve(state: Arc<Mutex<State>>, broker: i32, mut stream: TcpStream) -> Option<()> {
    let mut wanted: Option<(i64, i32)> = None;
    loop {
        let length = stream.read_i32().await.ok()?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let (key, version) = ((&frame[..2]).get_i16(), (&frame[2..4]).get_i16());
        let api = ApiKey::try_from(key).ok()?;
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).ok()?;
        let mut out = BytesMut::new();
        out.put_i32(header.correlation_id);
        if api.response_header_version(version) == 1 {
            out.put_u8(0);
        }
        let versions = state.lock().unwrap().versions;
        match api {
            ApiKey::ApiVersions if version > versions[0] => {
                let answer = ApiVersionsResponse::default().with_error_code(35);
                answer.encode(&mut out, 0).ok()?;
            }
            ApiKey::ApiVersions => {
                let mut keys =
                    vec![(18, 0, versions[0]), (3, 0, versions[1]), (2, 0, versions[2]), (1, 0, versions[3])];
                keys.push((0, 3, 13));
                keys.extend(state.lock().unwrap().epochs.is_some().then_some((23, 2, 4)));
                let keys = keys.into_iter().map(|(key, lowest, highest)| {
                    ApiVersion::default().with_api_key(key).with_min_version(lowest).with_max_version(highest)
                });
                ApiVersionsResponse::default().with_api_keys(keys.collect()).encode(&mut out, version).ok()?;
            }
            ApiKey::Metadata => {
                let mut state = state.lock().unwrap();
                state.metadata_asked += 1;
                metadata(&state, version).encode(&mut out, version).ok()?;
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(&mut frame, version).ok()?;
                list_offsets(&state.lock().unwrap(), &request).encode(&mut out, version).ok()?;
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = OffsetForLeaderEpochRequest::decode(&mut frame, version).ok()?;
                epoch_end(&mut state.lock().unwrap(), broker, &request).encode(&mut out, version).ok()?;
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut frame, version).ok()?;
                write(&mut state.lock().unwrap(), broker, &request)?.encode(&mut out, version).ok()?;
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut frame, version).ok()?;
                match fetch(&state, broker, &request, &mut wanted).await {
                    Ok((answer, pause)) => {
                        answer.encode(&mut out, version).ok()?;
                        if let Some(pause) = pause {
                            trickle(&mut stream, &out, pause).await?;
                            continue;
                        }
                    }
                    Err(raw) => {
                        stream.write_all(&raw).await.ok()?;
                        return None;
                    }
                }
            }
            _ => return None,
        }
        stream.write_i32(out.len() as i32).await.ok()?;
        stream.write_all(&out).await.ok()?;
    }
}

fn metadata(state: &State, version: i16) -> MetadataResponse {
    let brokers = state.addresses.iter().map(|(&id, &port)| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(i32::from(port))
    });
    let partition = MetadataResponsePartition::default()
        .with_leader_id(BrokerId(state.leader))
        .with_leader_epoch(state.leader_epoch);
    let mut topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))))
        .with_partitions(vec![partition]);
    if version >= 10 {
        topic = topic.with_topic_id(state.topic_id);
    }
    MetadataResponse::default().with_brokers(brokers.collect()).with_topics(vec![topic])
}

fn list_offsets(state: &State, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let end = state.log.last().map_or(state.log_start, |batch| batch.1 + 1);
    let offset = if request.topics[0].partitions[0].timestamp == -2 { state.log_start } else { end };
    let partition = ListOffsetsPartitionResponse::default().with_offset(offset);
    let topic = ListOffsetsTopicResponse::default().with_partitions(vec![partition]);
    ListOffsetsResponse::default().with_topics(vec![topic])
}

/// Writes an answer in four pieces.
async fn trickle(stream: &mut TcpStream, answer: &[u8], pause: Duration) -> Option<()> {
    let whole = [&(answer.len() as i32).to_be_bytes(), answer].concat();
    for piece in whole.chunks(whole.len().div_ceil(4)) {
        tokio::time::sleep(pause).await;
        stream.write_all(piece).await.ok()?;
    }
    Some(())
}

/// As `LeaderEpochFileCache.endOffsetFor` of Kafka has it.
fn epoch_end(state: &mut State, broker: i32, request: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let asked = &request.topics[0].partitions[0];
    state.epochs_asked.push((broker, asked.current_leader_epoch, asked.leader_epoch));
    let epochs = state.epochs.clone().unwrap_or_default();
    let log_end = state.log.last().map_or(state.log_start, |batch| batch.1 + 1);
    let (epoch, end) = match epochs.iter().position(|&(epoch, _)| epoch > asked.leader_epoch) {
        None if epochs.last().is_some_and(|&(epoch, _)| epoch == asked.leader_epoch) => (asked.leader_epoch, log_end),
        None => (-1, -1),
        Some(0) => (asked.leader_epoch, epochs[0].1),
        Some(next) => (epochs[next - 1].0, epochs[next].1),
    };
    let found = EpochEndOffset::default().with_leader_epoch(epoch).with_end_offset(end);
    let topic = OffsetForLeaderTopicResult::default().with_partitions(vec![found]);
    OffsetForLeaderEpochResponse::default().with_topics(vec![topic])
}

/// Takes a batch; `None`: the connection ends.
fn write(state: &mut State, broker: i32, request: &ProduceRequest) -> Option<ProduceResponse> {
    let data = &request.topic_data[0].partition_data[0];
    let mut batch = data.records.clone().unwrap();
    let records = RecordBatchDecoder::decode(&mut batch).unwrap().records;
    let values: Vec<Vec<u8>> = records.iter().map(|record| record.value.clone().unwrap().to_vec()).collect();
    let refused = state.refused_value.clone().filter(|(value, _)| values.contains(value));
    let (error, lost) = match state.write_replies.pop_front() {
        Some(WriteReply::Error(code)) => (code, false),
        Some(WriteReply::Lost) => (0, true),
        None if broker != state.leader => (6, false),
        None => (refused.map_or(0, |(_, code)| code), false),
    };
    let base = state.written.iter().map(Vec::len).sum::<usize>() as i64;
    if error == 0 {
        state.written.push(values);
    }
    let answer = PartitionProduceResponse::default().with_error_code(error).with_base_offset(base);
    let topic = TopicProduceResponse::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partition_responses(vec![answer]);
    (!lost).then(|| ProduceResponse::default().with_responses(vec![topic]))
}

/// `wanted` is the session: offset and size that were asked for last.
async fn fetch(
    state: &Arc<Mutex<State>>,
    broker: i32,
    request: &FetchRequest,
    wanted: &mut Option<(i64, i32)>,
) -> Result<(FetchResponse, Option<Duration>), Vec<u8>> {
    if let Some(each) = request.topics.first().map(|topic| &topic.partitions[0]) {
        *wanted = Some((each.fetch_offset, each.partition_max_bytes));
    } else if !request.forgotten_topics_data.is_empty() {
        *wanted = None;
    }
    let reply = {
        let mut state = state.lock().unwrap();
        state.fetches.push((broker, request.clone()));
        state.fetched_at.push(Instant::now());
        state.replies.get_mut(&broker).and_then(VecDeque::pop_front)
    };
    let pause = match reply {
        Some(Reply::Answer(answer)) => return Ok((answer(request), None)),
        Some(Reply::Raw(bytes)) => return Err(bytes),
        Some(Reply::Hang) => std::future::pending().await,
        Some(Reply::Slow(pause)) => Some(pause),
        None => None,
    };
    let (records, end, sessions) = {
        let state = state.lock().unwrap();
        let offset = wanted.map_or(i64::MAX, |wanted| wanted.0);
        let records: Vec<u8> =
            state.log.iter().filter(|batch| batch.1 >= offset).flat_map(|batch| batch.2.clone()).collect();
        (records, state.log.last().map_or(0, |batch| batch.1 + 1), state.sessions)
    };
    if records.is_empty() {
        // A short long poll.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let data = error(0)
        .with_high_watermark(end)
        .with_last_stable_offset(end)
        .with_log_start_offset(0)
        .with_records(Some(records.into()));
    let answer = if wanted.is_some() { partition(request, data) } else { FetchResponse::default() };
    Ok((answer.with_session_id(if sessions { 9 } else { 0 }), pause))
}
