//! DescribeConfigs: settings of a topic.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

/// Kafka's number for a topic among the things that have settings.
const TOPIC: i8 = 2;

/// Asks for some settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigs {
    pub topic: String,
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsAnswer {
    pub error: i16,
    pub message: Option<String>,
    /// (key, value), with the defaults of the broker where the topic sets none.
    pub settings: Vec<(String, Option<String>)>,
}

impl Request for DescribeConfigs {
    type Answer = Vec<DescribeConfigsAnswer>;
    const API: Api = Api { name: "DescribeConfigs", key: 32, versions: (1, 4), flexible: 4 };

    fn write(&self, out: &mut Writer, version: i16) {
        out.array(&[self], |out, asked| {
            out.i8(TOPIC);
            out.string(&asked.topic);
            out.array(&asked.keys, |out, key| out.string(key));
            out.no_tags();
        });
        // Neither synonyms nor documentation.
        out.bool(false);
        if version >= 3 {
            out.bool(false);
        }
        out.no_tags();
    }

    fn read(wire: &mut Reader, version: i16) -> Result<Vec<DescribeConfigsAnswer>, WireError> {
        wire.i32()?;
        let answers = wire.array(6, |wire| {
            let (error, message) = (wire.i16()?, wire.nullable_string()?);
            wire.i8()?;
            wire.string()?;
            let settings = wire.array(6, |wire| read_setting(wire, version))?;
            wire.skip_tags()?;
            Ok(DescribeConfigsAnswer { error, message, settings })
        })?;
        wire.skip_tags()?;
        Ok(answers)
    }
}

fn read_setting(wire: &mut Reader, version: i16) -> Result<(String, Option<String>), WireError> {
    let setting = (wire.string()?, wire.nullable_string()?);
    let (_read_only, _source, _sensitive) = (wire.bool()?, wire.i8()?, wire.bool()?);
    wire.array(3, |wire| {
        let (_key, _value, _source) = (wire.string()?, wire.nullable_string()?, wire.i8()?);
        wire.skip_tags()
    })?;
    if version >= 3 {
        let (_type, _documentation) = (wire.i8()?, wire.nullable_string()?);
    }
    wire.skip_tags()?;
    Ok(setting)
}
