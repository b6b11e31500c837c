//! SCRAM (RFC 5802, RFC 7677), the client's side, without channel binding.
//!
//! Owns: the three messages and their proofs. Does not own: how they travel.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// The least that RFC 7677 and Kafka ask for.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug)]
pub enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// An exchange after its first message.
pub struct Exchange {
    hash: Hash,
    nonce: String,
    first_bare: String,
}

/// What the server has to prove in its last message.
pub struct Proof {
    signature: Vec<u8>,
}

impl Exchange {
    /// Begins with a nonce of printable characters other than a comma; returns the first message.
    pub fn start(hash: Hash, username: &str, nonce: String) -> (Self, String) {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={username},r={nonce}");
        let first = format!("n,,{first_bare}");
        (Self { hash, nonce, first_bare }, first)
    }

    /// Answers the server's first message with ours.
    ///
    /// # Errors
    /// The message is damaged, or asks for too little or too much work.
    pub fn prove(self, password: &str, server_first: &str) -> Result<(Proof, String), String> {
        let field = |name: &str| {
            let found = server_first.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| format!("SCRAM challenge without {name}"))
        };
        let nonce = field("r")?;
        // Only an answer to this exchange begins with its nonce.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("SCRAM challenge with another nonce".into());
        }
        let salt = STANDARD.decode(field("s")?).map_err(|_| "SCRAM challenge with a damaged salt")?;
        let iterations: u32 = field("i")?.parse().map_err(|_| "SCRAM challenge with damaged iterations")?;
        let iterations = NonZeroU32::new(iterations)
            .filter(|iterations| ITERATIONS.contains(&iterations.get()))
            .ok_or_else(|| format!("SCRAM challenge with {iterations} iterations"))?;
        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &salt, password.as_bytes(), &mut salted);
        let sign =
            |key: &[u8], message: &[u8]| hmac::sign(&hmac::Key::new(self.hash.hmac(), key), message).as_ref().to_vec();
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), &client_key);
        // "biws" is base64 of "n,,".
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_signature = sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&client_signature).map(|(key, sign)| key ^ sign).collect();
        let server_key = sign(&salted, b"Server Key");
        let signature = sign(&server_key, auth_message.as_bytes());
        Ok((Proof { signature }, format!("{without_proof},p={}", STANDARD.encode(proof))))
    }
}

impl Proof {
    /// Checks that the server knows the password too.
    ///
    /// # Errors
    /// It doesn't, or says what it found wrong.
    pub fn check(&self, server_final: &str) -> Result<(), String> {
        let mut fields = server_final.split(',');
        let first = fields.next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(format!("SCRAM: {error}"));
        }
        let signature = first.strip_prefix("v=").and_then(|signature| STANDARD.decode(signature).ok());
        if signature.as_ref() == Some(&self.signature) {
            return Ok(());
        }
        Err("SCRAM: the broker doesn't know the password either".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_specification() {
        let (exchange, first) = Exchange::start(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (proof, answer) = exchange.prove("pencil", challenge).unwrap();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        proof.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(proof.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").is_err());
        assert!(proof.check("e=invalid-proof").unwrap_err().contains("invalid-proof"));
    }

    #[test]
    fn hostile_challenges_are_refused() {
        let challenge = |text: &str| {
            let (exchange, _) = Exchange::start(Hash::Sha512, "a=b,c", "abc".into());
            exchange.prove("p", text).map(|_| ())
        };
        for bad in [
            "",
            "r=abc,s=AAAA,i=4096",
            "r=xyz1,s=AAAA,i=4096",
            "r=abc1,s=!,i=4096",
            "r=abc1,s=AAAA,i=1",
            "r=abc1,s=AAAA,i=4000000000",
            "r=abc1,s=AAAA",
        ] {
            assert!(challenge(bad).is_err(), "{bad}");
        }
        assert!(challenge("r=abc1,s=AAAA,i=4096").is_ok());
    }
}
