//! An arm of a comparison: which attention is trained.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What distinguishes one arm from another; everything else comes from the settings they share.
/// Written `standard` or `genetic`, either with `+qk-norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arm {
    /// Whether the attention has the genetic part.
    pub genetic: bool,
    /// Whether this arm normalises queries and keys.
    pub qk_norm: bool,
}

/// A name that is no arm.
#[derive(Debug, thiserror::Error)]
#[error("unknown arm '{0}': arms are standard, genetic, standard+qk-norm and genetic+qk-norm")]
pub struct UnknownArm(String);

impl Arm {
    /// Multi-head attention as in BERT.
    pub const STANDARD: Arm = Arm { genetic: false, qk_norm: false };
    /// The same with the genetic part.
    pub const GENETIC: Arm = Arm { genetic: true, qk_norm: false };
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.genetic { "genetic" } else { "standard" })?;
        f.write_str(if self.qk_norm { "+qk-norm" } else { "" })
    }
}

impl FromStr for Arm {
    type Err = UnknownArm;

    fn from_str(name: &str) -> Result<Self, UnknownArm> {
        let (base, qk_norm) = match name.strip_suffix("+qk-norm") {
            Some(base) => (base, true),
            None => (name, false),
        };
        match base {
            "standard" => Ok(Arm { genetic: false, qk_norm }),
            "genetic" => Ok(Arm { genetic: true, qk_norm }),
            _ => Err(UnknownArm(name.into())),
        }
    }
}

impl TryFrom<String> for Arm {
    type Error = UnknownArm;

    fn try_from(name: String) -> Result<Self, UnknownArm> {
        name.parse()
    }
}

impl From<Arm> for String {
    fn from(arm: Arm) -> String {
        arm.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_arm_are_one() {
        for name in ["standard", "genetic", "standard+qk-norm", "genetic+qk-norm"] {
            assert_eq!(name.parse::<Arm>().unwrap().to_string(), name);
        }
        assert!("genetics".parse::<Arm>().unwrap_err().to_string().contains("'genetics'"));
    }
}
