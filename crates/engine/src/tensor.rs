//! Arrays on a device.

use std::fmt;
use std::sync::Arc;

use crate::device::Device;
use crate::error::{Result, ensure_shape};
use crate::pool::{Buffer, FreeList, Pools};

/// What an array can hold.
pub trait Element: bytemuck::Pod + Default + Send + Sync + fmt::Debug {
    #[doc(hidden)]
    fn free_list(pools: &Pools) -> &FreeList<Self>;
}

impl Element for f32 {
    fn free_list(pools: &Pools) -> &FreeList<f32> {
        &pools.f32
    }
}

impl Element for u32 {
    fn free_list(pools: &Pools) -> &FreeList<u32> {
        &pools.u32
    }
}

/// bf16, by its bits.
impl Element for u16 {
    fn free_list(pools: &Pools) -> &FreeList<u16> {
        &pools.u16
    }
}

/// A dense row-major array. Clones share the data; writing to a shared array copies it first.
#[derive(Clone)]
pub struct Array<T: Element> {
    device: Device,
    shape: Vec<usize>,
    buffer: Arc<Buffer<T>>,
}

/// An array of real numbers.
pub type Tensor = Array<f32>;
/// An array of indices.
pub type Ids = Array<u32>;

impl<T: Element> Array<T> {
    /// An array with unspecified contents, for a kernel to fill.
    pub fn empty(device: &Device, shape: &[usize]) -> Self {
        let buffer = Buffer::new(device.pools(), shape.iter().product());
        Array { device: device.clone(), shape: shape.to_vec(), buffer: Arc::new(buffer) }
    }

    /// An array with every element equal to `value`.
    pub fn full(device: &Device, shape: &[usize], value: T) -> Self {
        let mut array = Array::empty(device, shape);
        array.data_mut().fill(value);
        array
    }

    /// An array of zeros.
    pub fn zeros(device: &Device, shape: &[usize]) -> Self {
        Array::full(device, shape, T::default())
    }

    /// A copy of `data`, whose length must be the product of `shape`.
    pub fn from_slice(device: &Device, shape: &[usize], data: &[T]) -> Result<Self> {
        ensure_shape!(
            shape.iter().product::<usize>() == data.len(),
            "from_slice",
            "{} elements do not fill the shape {shape:?}",
            data.len()
        );
        let mut array = Array::empty(device, shape);
        array.data_mut().copy_from_slice(data);
        Ok(array)
    }

    /// An array of the same shape and device with unspecified contents.
    pub fn empty_like(&self) -> Self {
        Array::empty(&self.device, &self.shape)
    }

    /// The same data under another shape of as many elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        ensure_shape!(
            shape.iter().product::<usize>() == self.len(),
            "reshape",
            "{:?} does not hold as many elements as {shape:?}",
            self.shape
        );
        Ok(Array { device: self.device.clone(), shape: shape.to_vec(), buffer: self.buffer.clone() })
    }

    /// Where the array lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.buffer.as_slice().len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extent of the last dimension (1 for a scalar).
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// A copy of the elements on the host, row by row.
    pub fn to_vec(&self) -> Vec<T> {
        self.data().to_vec()
    }

    /// The elements, row by row.
    pub fn data(&self) -> &[T] {
        self.buffer.as_slice()
    }

    /// The elements, to be written; copies them first if another clone shares them.
    pub fn data_mut(&mut self) -> &mut [T] {
        Arc::make_mut(&mut self.buffer).as_mut_slice()
    }
}

impl Tensor {
    /// The first element; the value of a scalar.
    pub fn item(&self) -> f32 {
        self.data().first().copied().unwrap_or(f32::NAN)
    }
}

impl<T: Element> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.data()[..self.len().min(8)];
        write!(f, "{:?} on {:?}: {head:?}", self.shape, self.device)?;
        if self.len() > head.len() { f.write_str(" …") } else { Ok(()) }
    }
}
