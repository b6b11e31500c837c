//! ApiVersions: which versions of which requests a broker speaks.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};
use crate::version::VERSION;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersions;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiVersionsAnswer {
    pub error: i16,
    /// (api key, lowest version, highest version).
    pub apis: Vec<(i16, i16, i16)>,
}

impl Request for ApiVersions {
    type Answer = ApiVersionsAnswer;
    const API: Api = Api { name: "ApiVersions", key: 18, versions: (0, 3), flexible: 3 };

    fn write(&self, out: &mut Writer, version: i16) {
        if version >= 3 {
            out.string("sluice");
            out.string(VERSION);
            out.no_tags();
        }
    }

    fn read(wire: &mut Reader, version: i16) -> Result<ApiVersionsAnswer, WireError> {
        let error = wire.i16()?;
        let apis = wire.array(6, |wire| {
            let api = (wire.i16()?, wire.i16()?, wire.i16()?);
            wire.skip_tags()?;
            Ok(api)
        })?;
        if version >= 1 {
            wire.i32()?;
        }
        wire.skip_tags()?;
        Ok(ApiVersionsAnswer { error, apis })
    }
}
