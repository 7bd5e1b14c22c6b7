//! What an array is in device memory: rows of elements in a block, alone or beside others.

use std::sync::{Arc, Weak};

use cudarc::driver::sys::CUdeviceptr;

use super::arena::Block;
use super::context::Context;
use super::partial_sums::PartialSums;
use super::products::Operand;

/// What the elements of an array are in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// 32-bit indices.
    U32,
}

impl Kind {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Kind::F32 | Kind::U32 => 4,
            Kind::Bf16 => 2,
        }
    }
}

/// Elements of an array in a block. Several arrays may share a block, each with elements of its own.
#[derive(Clone, Debug)]
pub struct Slice {
    block: Arc<Block>,
    context: Arc<Context>,
    /// Bytes from the block's first to this array's first.
    offset: usize,
    /// Elements from one row to the next; `None` where there is nothing between rows.
    stride: Option<usize>,
    kind: Kind,
    len: usize,
    partial_sums: PartialSums,
}

impl Slice {
    /// Elements of a block of their own, with unspecified contents.
    pub fn new(context: &Arc<Context>, kind: Kind, len: usize) -> Self {
        let block = Arc::new(Block::new(context, len * kind.size()));
        Slice {
            block,
            context: context.clone(),
            offset: 0,
            stride: None,
            kind,
            len,
            partial_sums: PartialSums::default(),
        }
    }

    /// Matrices of `rows` rows and these columns side by side in the rows of one larger matrix.
    pub fn side_by_side(context: &Arc<Context>, kind: Kind, rows: usize, columns: &[usize]) -> Vec<Self> {
        let stride: usize = columns.iter().sum();
        let whole = Slice::new(context, kind, rows * stride);
        let mut before = 0;
        let part = |&columns: &usize| {
            let offset = before * kind.size();
            before += columns;
            Slice { offset, stride: Some(stride), len: rows * columns, ..whole.clone() }
        };
        columns.iter().map(part).collect()
    }

    /// Arrays of these lengths one after the other.
    pub fn stacked(context: &Arc<Context>, kind: Kind, lens: &[usize]) -> Vec<Self> {
        let whole = Slice::new(context, kind, lens.iter().sum());
        let mut before = 0;
        let part = |&len: &usize| {
            let offset = before * kind.size();
            before += len;
            Slice { offset, len, ..whole.clone() }
        };
        lens.iter().map(part).collect()
    }

    /// The device's context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The first element.
    pub fn address(&self) -> CUdeviceptr {
        self.block.address() + self.offset as u64
    }

    /// What the elements are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Elements from one row of `columns` to the next.
    pub fn stride(&self, columns: usize) -> usize {
        self.stride.unwrap_or(columns)
    }

    /// Whether nothing lies between the rows.
    pub fn is_dense(&self, columns: usize) -> bool {
        self.stride(columns) == columns
    }

    /// As a matrix of rows of `columns`.
    pub fn operand(&self, columns: usize) -> Operand {
        let (rows, stride) = (self.len / columns.max(1), self.stride(columns));
        Operand { address: self.address(), rows, columns, stride, kind: self.kind, transposed: false }
    }

    /// The matrix that these make up side by side, if they do and nothing else is in its rows. `columns` of each.
    pub fn joined(parts: &[(&Slice, usize)]) -> Option<Operand> {
        let &(first, columns) = parts.first()?;
        let total: usize = parts.iter().map(|part| part.1).sum();
        let mut next = first.offset;
        for (part, columns) in parts {
            let beside =
                Arc::ptr_eq(&part.block, &first.block) && part.offset == next && part.stride(*columns) == total;
            if !beside {
                return None;
            }
            next += columns * part.kind.size();
        }
        Some(Operand { rows: first.len / columns.max(1), columns: total, stride: total, ..first.operand(columns) })
    }

    /// Whether each follows directly on the one before.
    pub fn follow(parts: &[&Slice]) -> bool {
        parts.windows(2).all(|pair| {
            Arc::ptr_eq(&pair[0].block, &pair[1].block)
                && pair[0].stride.is_none()
                && pair[1].offset == pair[0].offset + pair[0].len * pair[0].kind.size()
        })
    }

    /// What their memory holds, by a number that no other contents have had: for copies kept of it.
    pub fn stamp(&self) -> u64 {
        self.block.stamp()
    }

    /// Sums that whoever wrote it has made of its rows.
    pub fn partial_sums(&self) -> &PartialSums {
        &self.partial_sums
    }

    /// Tells that the contents change.
    pub fn touch(&self) {
        self.block.touch();
    }

    /// The memory.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Lives as long as the memory does.
    pub fn lifetime(&self) -> Weak<Block> {
        Arc::downgrade(&self.block)
    }
}
