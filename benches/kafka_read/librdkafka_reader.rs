//! A topic read with librdkafka's fastest interface: batches of messages from one queue, without a wrapper in between.
//!
//! Owns: the calls into the library. Does not own: what is measured.

#![allow(unsafe_code, reason = "the library's batch interface is C; its safe wrapper shows messages one at a time")]

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_message_destroy, rd_kafka_message_t, rd_kafka_queue_destroy,
    rd_kafka_queue_get_consumer, rd_kafka_resp_err_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const BATCH: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(1);

/// Reads from the starts (partition, offset) to the ends; each value is given to `take`.
pub(crate) fn read(
    address: &str,
    topic: &str,
    starts: &[(i32, i64)],
    mut ends: BTreeMap<i32, i64>,
    mut take: impl FnMut(&[u8]),
) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        // As the native reader does.
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for &(partition, offset) in starts {
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    // SAFETY: the consumer outlives the queue, which is given back below.
    let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut messages: Vec<*mut rd_kafka_message_t> = vec![std::ptr::null_mut(); BATCH];
    while !ends.is_empty() {
        // SAFETY: there is room for as many messages as are asked for.
        let count = unsafe {
            rd_kafka_consume_batch_queue(queue, TIMEOUT.as_millis() as i32, messages.as_mut_ptr(), messages.len())
        };
        for &message in &messages[..usize::try_from(count).unwrap()] {
            // SAFETY: the library filled so many places; each message is valid until it is destroyed, once, here.
            unsafe {
                let seen = &*message;
                if seen.err == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    if !seen.payload.is_null() {
                        take(std::slice::from_raw_parts(seen.payload.cast::<u8>(), seen.len));
                    }
                    if ends.get(&seen.partition).is_some_and(|&end| seen.offset + 1 >= end) {
                        ends.remove(&seen.partition);
                    }
                }
                rd_kafka_message_destroy(message);
            }
        }
    }
    // SAFETY: it is not used any more.
    unsafe { rd_kafka_queue_destroy(queue) };
}
