//! Holds each message against kafka-protocol, generated from Kafka's own schemas: requests written here are read there,
//! answers written there are read here, in every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as theirs, BrokerId, GroupId, ProducerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use super::*;

fn versions(api: Api) -> std::ops::RangeInclusive<i16> {
    api.versions.0..=api.versions.1
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Writes a request as we do and reads it as they do.
fn asked<R: Request, T: Decodable>(request: &R, version: i16) -> T {
    let mut out = Writer::new(version >= R::API.flexible);
    request.write(&mut out, version);
    let mut bytes = Bytes::from(out.bytes);
    let read = T::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} v{version}: {} bytes left", R::API.name, bytes.len());
    read
}

/// Writes an answer as they do and reads it as we do; also with every possible cut.
fn answered<R: Request>(answer: &impl Encodable, version: i16) -> R::Answer {
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes, version).unwrap();
    let bytes = bytes.freeze();
    let flexible = version >= R::API.flexible;
    for cut in 0..bytes.len() {
        let mut wire = Reader::new(bytes.slice(..cut), flexible);
        assert!(R::read(&mut wire, version).is_err(), "{} v{version} cut at {cut} of {}", R::API.name, bytes.len());
    }
    let mut wire = Reader::new(bytes, flexible);
    let read = R::read(&mut wire, version).unwrap();
    wire.finish().unwrap();
    read
}

#[test]
fn api_versions() {
    use theirs::api_versions_response::ApiVersion;
    for version in versions(api_versions::ApiVersions::API) {
        let request: theirs::ApiVersionsRequest = asked(&api_versions::ApiVersions, version);
        assert_eq!(request.client_software_name.as_str(), if version >= 3 { "sluice" } else { "" });
        let answer = theirs::ApiVersionsResponse::default()
            .with_error_code(35)
            .with_api_keys(vec![ApiVersion::default().with_api_key(1).with_min_version(4).with_max_version(18)]);
        let read = answered::<api_versions::ApiVersions>(&answer, version);
        assert_eq!(read, api_versions::ApiVersionsAnswer { error: 35, apis: vec![(1, 4, 18)] });
    }
}

#[test]
fn metadata() {
    use theirs::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
    for version in versions(metadata::Metadata::API) {
        let request: theirs::MetadataRequest =
            asked(&metadata::Metadata { topics: Some(vec!["a".into(), "b".into()]) }, version);
        assert!(!request.allow_auto_topic_creation);
        let names: Vec<_> = request.topics.unwrap().into_iter().map(|topic| topic.name.unwrap().to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        let all: theirs::MetadataRequest = asked(&metadata::Metadata { topics: None }, version);
        assert!(all.topics.is_none());

        let partition = MetadataResponsePartition::default()
            .with_error_code(9)
            .with_partition_index(3)
            .with_leader_id(BrokerId(2))
            .with_leader_epoch(17)
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
            .with_isr_nodes(vec![BrokerId(2)])
            .with_offline_replicas(vec![BrokerId(1)]);
        let id = Uuid::from_bytes([7; 16]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("a"))))
            .with_is_internal(true)
            .with_partitions(vec![partition]);
        let topic = if version >= 10 { topic.with_topic_id(id) } else { topic };
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(2))
            .with_host(text("h"))
            .with_port(9092)
            .with_rack(Some(text("r")));
        let answer = theirs::MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(text("c")))
            .with_topics(vec![topic]);
        let answer = if version >= 13 { answer.with_error_code(5) } else { answer };
        let read = answered::<metadata::Metadata>(&answer, version);
        let broker = metadata::Broker { id: 2, host: "h".into(), port: 9092, rack: Some("r".into()) };
        let partition = metadata::PartitionMetadata { error: 9, partition: 3, leader: 2, leader_epoch: 17 };
        let topic = metadata::TopicMetadata {
            error: 0,
            name: Some("a".into()),
            id: if version >= 10 { [7; 16] } else { [0; 16] },
            internal: true,
            partitions: vec![partition],
        };
        let error = if version >= 13 { 5 } else { 0 };
        let expected = metadata::MetadataAnswer {
            error,
            cluster_id: Some("c".into()),
            brokers: vec![broker],
            topics: vec![topic],
        };
        assert_eq!(read, expected);
    }
}

#[test]
fn list_offsets() {
    use theirs::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    for version in versions(list_offsets::ListOffsets::API) {
        let request = list_offsets::ListOffsets {
            topic: "t".into(),
            partition: 3,
            leader_epoch: 8,
            timestamp: -2,
            read_committed: true,
        };
        let read: theirs::ListOffsetsRequest = asked(&request, version);
        assert_eq!((read.replica_id, read.isolation_level), (BrokerId(-1), 1));
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.current_leader_epoch, partition.timestamp), (3, 8, -2));
        let partition = ListOffsetsPartitionResponse::default()
            .with_partition_index(3)
            .with_error_code(6)
            .with_timestamp(5)
            .with_offset(99)
            .with_leader_epoch(1);
        let topic =
            ListOffsetsTopicResponse::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
        let answer = theirs::ListOffsetsResponse::default().with_topics(vec![topic]);
        let read = answered::<list_offsets::ListOffsets>(&answer, version);
        assert_eq!(read, [list_offsets::ListOffsetsAnswer { partition: 3, error: 6, offset: 99 }]);
    }
}

#[test]
fn offset_for_leader_epoch() {
    use offset_for_leader_epoch::{OffsetForLeaderEpoch, OffsetForLeaderEpochAnswer};
    use theirs::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
    for version in versions(OffsetForLeaderEpoch::API) {
        let request =
            OffsetForLeaderEpoch { topic: "t".into(), partition: 3, current_leader_epoch: 9, leader_epoch: 8 };
        let read: theirs::OffsetForLeaderEpochRequest = asked(&request, version);
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition, partition.current_leader_epoch, partition.leader_epoch), (3, 9, 8));
        let partition =
            EpochEndOffset::default().with_partition(3).with_error_code(74).with_leader_epoch(7).with_end_offset(55);
        let topic = OffsetForLeaderTopicResult::default().with_partitions(vec![partition]);
        let answer = theirs::OffsetForLeaderEpochResponse::default().with_topics(vec![topic]);
        let read = answered::<OffsetForLeaderEpoch>(&answer, version);
        assert_eq!(read, [OffsetForLeaderEpochAnswer { error: 74, partition: 3, leader_epoch: 7, end_offset: 55 }]);
    }
}

fn fetch_request() -> fetch::Fetch {
    let partition =
        fetch::FetchPartition { partition: 3, leader_epoch: 9, offset: 77, last_fetched_epoch: 8, max_bytes: 1000 };
    fetch::Fetch {
        max_wait_ms: 500,
        max_bytes: 5000,
        read_committed: true,
        session_id: 12,
        session_epoch: 4,
        topic: "t".into(),
        topic_id: [7; 16],
        partitions: vec![partition],
        forgotten: vec![5],
        rack: "r".into(),
    }
}

#[test]
fn fetch_requests() {
    for version in versions(fetch::Fetch::API) {
        let read: theirs::FetchRequest = asked(&fetch_request(), version);
        assert_eq!((read.replica_id, read.max_wait_ms, read.min_bytes, read.max_bytes), (BrokerId(-1), 500, 1, 5000));
        assert_eq!((read.isolation_level, read.session_id, read.session_epoch), (1, 12, 4));
        assert_eq!(read.rack_id.as_str(), if version >= 11 { "r" } else { "" });
        let topic = &read.topics[0];
        assert_eq!(topic.topic.as_str(), if version >= 13 { "" } else { "t" });
        assert_eq!(topic.topic_id.as_bytes(), if version >= 13 { &[7; 16] } else { &[0; 16] });
        let partition = &topic.partitions[0];
        assert_eq!((partition.partition, partition.current_leader_epoch, partition.fetch_offset), (3, 9, 77));
        assert_eq!(partition.last_fetched_epoch, if version >= 12 { 8 } else { -1 });
        assert_eq!((partition.log_start_offset, partition.partition_max_bytes), (-1, 1000));
        assert_eq!(read.forgotten_topics_data[0].partitions, [5]);

        let empty = fetch::Fetch { partitions: Vec::new(), forgotten: Vec::new(), ..fetch_request() };
        let read: theirs::FetchRequest = asked(&empty, version);
        assert!(read.topics.is_empty() && read.forgotten_topics_data.is_empty());
    }
}

#[test]
fn fetch_answers() {
    use theirs::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    };
    for version in versions(fetch::Fetch::API) {
        let mut partition = PartitionData::default()
            .with_partition_index(3)
            .with_error_code(6)
            .with_high_watermark(100)
            .with_last_stable_offset(90)
            .with_log_start_offset(10)
            .with_aborted_transactions(Some(vec![
                AbortedTransaction::default().with_producer_id(ProducerId(5)).with_first_offset(50),
            ]))
            .with_records(Some(Bytes::from_static(b"records")));
        let mut topic = FetchableTopicResponse::default();
        let mut answer =
            theirs::FetchResponse::default().with_throttle_time_ms(1).with_error_code(70).with_session_id(12);
        if version >= 11 {
            partition = partition.with_preferred_read_replica(BrokerId(4));
        }
        if version >= 12 {
            partition = partition
                .with_diverging_epoch(EpochEndOffset::default().with_epoch(2).with_end_offset(33))
                .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(1)).with_leader_epoch(9));
        }
        if version >= 16 {
            let node = NodeEndpoint::default().with_node_id(BrokerId(1)).with_host(text("h")).with_port(92);
            answer = answer.with_node_endpoints(vec![node]);
        }
        topic = if version >= 13 {
            topic.with_topic_id(Uuid::from_bytes([7; 16]))
        } else {
            topic.with_topic(TopicName(text("t")))
        };
        let answer = answer.with_responses(vec![topic.with_partitions(vec![partition])]);
        let read = answered::<fetch::Fetch>(&answer, version);
        let expected = fetch::FetchAnswer {
            throttle_ms: 1,
            error: 70,
            session_id: 12,
            topics: vec![fetch::FetchedTopic {
                topic: if version >= 13 { String::new() } else { "t".into() },
                topic_id: if version >= 13 { [7; 16] } else { [0; 16] },
                partitions: vec![fetch::FetchedPartition {
                    partition: 3,
                    error: 6,
                    high_watermark: 100,
                    last_stable_offset: 90,
                    log_start_offset: 10,
                    aborted: vec![(5, 50)],
                    preferred_read_replica: if version >= 11 { 4 } else { -1 },
                    diverging: (version >= 12).then_some((2, 33)),
                    current_leader: (version >= 12).then_some((1, 9)),
                    records: Bytes::from_static(b"records"),
                }],
            }],
            nodes: if version >= 16 {
                vec![fetch::NodeEndpoint { id: 1, host: "h".into(), port: 92 }]
            } else {
                Vec::new()
            },
        };
        assert_eq!(read, expected, "v{version}");
    }
}

#[test]
fn group() {
    use theirs::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    for version in versions(group::FindCoordinator::API) {
        let read: theirs::FindCoordinatorRequest = asked(&group::FindCoordinator { group: "g".into() }, version);
        assert_eq!((read.key.as_str(), read.key_type), ("g", 0));
        let answer = theirs::FindCoordinatorResponse::default()
            .with_error_code(15)
            .with_error_message(Some(text("m")))
            .with_node_id(BrokerId(2))
            .with_host(text("h"))
            .with_port(92);
        let read = answered::<group::FindCoordinator>(&answer, version);
        assert_eq!((read.error, read.node, read.host.as_str(), read.port), (15, 2, "h", 92));
    }
    for version in versions(group::OffsetCommit::API) {
        let commit = group::OffsetCommit { group: "g".into(), topic: "t".into(), offsets: vec![(0, 5), (1, 6)] };
        let read: theirs::OffsetCommitRequest = asked(&commit, version);
        assert_eq!(read.group_id, GroupId(text("g")));
        assert_eq!((read.generation_id_or_member_epoch, read.member_id.as_str()), (-1, ""));
        let offsets: Vec<_> =
            read.topics[0].partitions.iter().map(|each| (each.partition_index, each.committed_offset)).collect();
        assert_eq!(offsets, [(0, 5), (1, 6)]);
        let partition = OffsetCommitResponsePartition::default().with_partition_index(1).with_error_code(25);
        let topic = OffsetCommitResponseTopic::default().with_partitions(vec![partition]);
        let answer = theirs::OffsetCommitResponse::default().with_topics(vec![topic]);
        assert_eq!(answered::<group::OffsetCommit>(&answer, version), [(1, 25)]);
    }
}

#[test]
fn sasl() {
    let read: theirs::SaslHandshakeRequest = asked(&super::sasl::SaslHandshake { mechanism: "PLAIN" }, 1);
    assert_eq!(read.mechanism.as_str(), "PLAIN");
    let answer = theirs::SaslHandshakeResponse::default().with_error_code(33).with_mechanisms(vec![text("PLAIN")]);
    let read = answered::<super::sasl::SaslHandshake>(&answer, 1);
    assert_eq!((read.error, read.mechanisms), (33, vec!["PLAIN".to_owned()]));
    for version in versions(super::sasl::SaslAuthenticate::API) {
        let read: theirs::SaslAuthenticateRequest =
            asked(&super::sasl::SaslAuthenticate { token: b"token".to_vec() }, version);
        assert_eq!(read.auth_bytes, "token");
        let answer = theirs::SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(text("no")))
            .with_auth_bytes(Bytes::from_static(b"challenge"));
        let answer = if version >= 1 { answer.with_session_lifetime_ms(7) } else { answer };
        let read = answered::<super::sasl::SaslAuthenticate>(&answer, version);
        assert_eq!((read.error, read.message.as_deref(), &read.token[..]), (58, Some("no"), &b"challenge"[..]));
        assert_eq!(read.lifetime_ms, if version >= 1 { 7 } else { 0 });
    }
}

#[test]
fn describe_configs() {
    use describe_configs::{DescribeConfigs, DescribeConfigsAnswer};
    use theirs::describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    };
    for version in versions(DescribeConfigs::API) {
        let request = DescribeConfigs { topic: "t".into(), keys: vec!["retention.ms".into()] };
        let read: theirs::DescribeConfigsRequest = asked(&request, version);
        assert_eq!((read.resources[0].resource_type, read.resources[0].resource_name.as_str()), (2, "t"));
        assert_eq!(read.resources[0].configuration_keys, Some(vec![text("retention.ms")]));
        assert!(!read.include_synonyms && !read.include_documentation);
        let synonym = DescribeConfigsSynonym::default().with_name(text("s")).with_value(None);
        let mut setting = DescribeConfigsResourceResult::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("5")))
            .with_synonyms(vec![synonym]);
        if version >= 3 {
            setting = setting.with_config_type(5).with_documentation(Some(text("doc")));
        }
        let result = DescribeConfigsResult::default()
            .with_error_code(29)
            .with_error_message(Some(text("no")))
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![setting]);
        let read = answered::<DescribeConfigs>(
            &theirs::DescribeConfigsResponse::default().with_results(vec![result]),
            version,
        );
        let settings = vec![("retention.ms".to_owned(), Some("5".to_owned()))];
        assert_eq!(read, [DescribeConfigsAnswer { error: 29, message: Some("no".into()), settings }]);
    }
}

#[test]
fn produce() {
    use theirs::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse};
    for version in versions(produce::Produce::API) {
        let request = produce::Produce {
            timeout_ms: 8_000,
            topic: "t".into(),
            batches: vec![(3, b"batch".to_vec()), (5, Vec::new())],
        };
        let read: theirs::ProduceRequest = asked(&request, version);
        assert_eq!((read.acks, read.timeout_ms, read.transactional_id), (-1, 8_000, None));
        let topic = &read.topic_data[0];
        assert_eq!(topic.name.as_str(), "t");
        let batches: Vec<_> =
            topic.partition_data.iter().map(|data| (data.index, data.records.clone().unwrap().to_vec())).collect();
        assert_eq!(batches, request.batches);

        let bad =
            BatchIndexAndErrorMessage::default().with_batch_index(1).with_batch_index_error_message(Some(text("why")));
        let partition = PartitionProduceResponse::default().with_index(3).with_error_code(87).with_base_offset(77);
        let partition = if version >= 8 { partition.with_record_errors(vec![bad]) } else { partition };
        let topic =
            TopicProduceResponse::default().with_name(TopicName(text("t"))).with_partition_responses(vec![partition]);
        let read =
            answered::<produce::Produce>(&theirs::ProduceResponse::default().with_responses(vec![topic]), version);
        let message = (version >= 8).then(|| "why".to_owned());
        assert_eq!(read, [produce::Produced { partition: 3, error: 87, base_offset: 77, message }]);
    }
}
