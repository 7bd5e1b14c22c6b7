//! Arrays on a device.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::arena::Buffer;
use crate::cuda::slice::{Kind, Slice};
use crate::device::{Device, Memory};
use crate::error::{Result, ensure_shape};

/// What an array can hold.
pub trait Element: bytemuck::Pod + Default + Send + Sync + fmt::Debug {
    #[doc(hidden)]
    const KIND: Kind;
    #[doc(hidden)]
    fn of_bf16(bits: u16) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::F32;
    fn of_bf16(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

impl Element for u32 {
    const KIND: Kind = Kind::U32;
    fn of_bf16(bits: u16) -> u32 {
        u32::from(bits)
    }
}

/// bf16, by its bits.
impl Element for u16 {
    const KIND: Kind = Kind::Bf16;
    fn of_bf16(bits: u16) -> u16 {
        bits
    }
}

/// A dense row-major array. Clones share the data; writing to a shared array copies it first.
#[derive(Clone)]
pub struct Array<T: Element> {
    device: Device,
    shape: Vec<usize>,
    storage: Storage<T>,
}

/// Where the elements are.
#[derive(Clone)]
enum Storage<T: Element> {
    Host(Arc<Buffer<T>>),
    /// Beside them what the host knows of them, for checks that wait for no device.
    Cuda(Arc<Slice>, Option<Arc<[T]>>),
}

/// An array of real numbers.
pub type Tensor = Array<f32>;
/// An array of indices.
pub type Ids = Array<u32>;

impl<T: Element> Array<T> {
    /// An array with unspecified contents, for a kernel to fill.
    pub fn empty(device: &Device, shape: &[usize]) -> Self {
        Array::of_kind(device, shape, T::KIND)
    }

    pub(crate) fn of_kind(device: &Device, shape: &[usize], kind: Kind) -> Self {
        let len = shape.iter().product();
        let storage = match device.memory() {
            Memory::Host(arena) => Storage::Host(Arc::new(Buffer::new(arena, len))),
            Memory::Cuda(context) => Storage::Cuda(Arc::new(Slice::new(context, kind, len)), None),
        };
        Array { device: device.clone(), shape: shape.to_vec(), storage }
    }

    /// An array with every element equal to `value`.
    pub fn full(device: &Device, shape: &[usize], value: T) -> Self {
        let mut array = Array::empty(device, shape);
        match &mut array.storage {
            Storage::Host(_) => array.data_mut().fill(value),
            Storage::Cuda(slice, known) => {
                let word = bytemuck::bytes_of(&value).try_into().map_or(0, u32::from_ne_bytes);
                slice.context().fill(slice.address(), word, slice.len());
                // Indices are checked on the host, numbers are not.
                if T::KIND == Kind::U32 {
                    *known = Some(vec![value; slice.len()].into());
                }
            }
        }
        array
    }

    /// An array of zeros.
    pub fn zeros(device: &Device, shape: &[usize]) -> Self {
        Array::full(device, shape, T::default())
    }

    /// An array whose elements `fill` writes, all of them: where they are to lie, if that is the host's memory.
    pub fn filled(device: &Device, shape: &[usize], fill: impl FnOnce(&mut [T])) -> Self {
        let mut array = Array::empty(device, shape);
        match &mut array.storage {
            Storage::Host(_) => fill(array.data_mut()),
            Storage::Cuda(slice, _) => {
                let mut data = vec![T::default(); slice.len()];
                fill(&mut data);
                slice.context().upload(bytemuck::cast_slice(&data), slice.address());
            }
        }
        array
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
        match &mut array.storage {
            Storage::Host(_) => array.data_mut().copy_from_slice(data),
            Storage::Cuda(slice, _) => slice.context().upload(bytemuck::cast_slice(data), slice.address()),
        }
        Ok(array)
    }

    /// An array of the same shape, device and precision with unspecified contents.
    pub fn empty_like(&self) -> Self {
        self.room()()
    }

    /// [`Array::empty_like`] for later, without the array.
    pub(crate) fn room(&self) -> impl Fn() -> Self + use<T> {
        let kind = match &self.storage {
            Storage::Host(_) => T::KIND,
            Storage::Cuda(slice, _) => slice.kind(),
        };
        let (device, shape) = (self.device.clone(), self.shape.clone());
        move || Array::of_kind(&device, &shape, kind)
    }

    /// The same data under another shape of as many elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        ensure_shape!(
            shape.iter().product::<usize>() == self.len(),
            "reshape",
            "{:?} does not hold as many elements as {shape:?}",
            self.shape
        );
        let Array { device, storage, .. } = self.contiguous();
        Ok(Array { device, shape: shape.to_vec(), storage })
    }

    /// The same elements with nothing between the rows.
    pub(crate) fn contiguous(&self) -> Self {
        match &self.storage {
            Storage::Cuda(slice, _) if !slice.is_dense(self.columns()) => self.copied(),
            _ => self.clone(),
        }
    }

    /// [`Array::contiguous`] of an array that is not needed otherwise.
    pub(crate) fn into_contiguous(self) -> Self {
        match &self.storage {
            Storage::Cuda(slice, _) if !slice.is_dense(self.columns()) => self.copied(),
            _ => self,
        }
    }

    /// Room for an array of this shape, device and precision: the array itself if nobody else has it.
    pub(crate) fn reused(self) -> Self {
        match &self.storage {
            Storage::Cuda(slice, _) if Arc::strong_count(slice) > 1 => self.empty_like(),
            _ => self,
        }
    }

    /// A copy.
    fn copied(&self) -> Self {
        let mut copy = self.empty_like();
        match (&self.storage, &mut copy.storage) {
            (Storage::Cuda(from, _), Storage::Cuda(to, _)) => {
                let (columns, size) = (self.columns(), from.kind().size());
                let strides = [from.stride(columns) * size, columns * size];
                from.context().copy_rows(from.address(), to.address(), strides, columns * size, self.rows());
            }
            _ => copy.data_mut().copy_from_slice(self.data()),
        }
        copy
    }

    /// Where the array lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same elements on another device, or the array itself if it is there.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if device.memory().is(self.device.memory()) {
            return Ok(Array { device: device.clone(), ..self.clone() });
        }
        Array::from_slice(device, &self.shape, &self.to_vec())
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
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

    /// A copy of the elements on the host, row by row. Waits for the device. Of a device that has failed they are
    /// zeros: [`Device::check`] tells.
    pub fn to_vec(&self) -> Vec<T> {
        match &self.contiguous().storage {
            Storage::Host(buffer) => buffer.as_slice().to_vec(),
            Storage::Cuda(slice, _) if slice.kind() == T::KIND => {
                let mut data = vec![T::default(); self.len()];
                slice.context().download(slice.address(), bytemuck::cast_slice_mut(&mut data));
                data
            }
            Storage::Cuda(slice, _) => {
                let mut bits = vec![0_u16; self.len()];
                slice.context().download(slice.address(), bytemuck::cast_slice_mut(&mut bits));
                bits.into_iter().map(T::of_bf16).collect()
            }
        }
    }

    /// The elements of an array in the host's memory, row by row. Of other devices there is [`Array::to_vec`].
    ///
    /// # Panics
    /// If the array is on another device: the kernels of the CPU are given none.
    pub fn data(&self) -> &[T] {
        match &self.storage {
            Storage::Host(buffer) => buffer.as_slice(),
            Storage::Cuda(..) => panic!("an array on {:?} has no elements in the host's memory", self.device),
        }
    }

    /// The elements, to be written; copies them first if another clone shares them.
    ///
    /// # Panics
    /// As [`Array::data`].
    pub fn data_mut(&mut self) -> &mut [T] {
        match &mut self.storage {
            Storage::Host(buffer) => Arc::make_mut(buffer).as_mut_slice(),
            Storage::Cuda(..) => panic!("an array on {:?} has no elements in the host's memory", self.device),
        }
    }

    /// What `make` makes of an array in the host's memory. If it is to be kept, it is made once, until the elements change; else
    /// what was kept is given up.
    ///
    /// # Panics
    /// As [`Array::data`].
    pub(crate) fn derived<D: Any + Send + Sync>(&self, keep: bool, make: impl FnOnce() -> D) -> Arc<D> {
        match &self.storage {
            Storage::Host(buffer) => buffer.derived(&self.shape, keep, make),
            Storage::Cuda(..) => panic!("an array on {:?} has no elements in the host's memory", self.device),
        }
    }

    /// What was so made and kept, if that is a `D`; nothing of an array on a GPU.
    pub(crate) fn kept<D: Any + Send + Sync>(&self) -> Option<Arc<D>> {
        match &self.storage {
            Storage::Host(buffer) => buffer.kept(&self.shape),
            Storage::Cuda(..) => None,
        }
    }

    /// The elements as far as the host knows them: those of an array in its memory, and those that it gave a device
    /// with [`Array::known_from_slice`] or [`Array::full`].
    pub fn known(&self) -> Option<&[T]> {
        match &self.storage {
            Storage::Host(buffer) => Some(buffer.as_slice()),
            Storage::Cuda(_, known) => known.as_deref(),
        }
    }

    /// As [`Array::from_slice`]; the host keeps a copy, for checks and plans that wait for no device.
    pub fn known_from_slice(device: &Device, shape: &[usize], data: &[T]) -> Result<Self> {
        let mut array = Array::from_slice(device, shape, data)?;
        if let Storage::Cuda(_, known) = &mut array.storage {
            *known = Some(data.into());
        }
        Ok(array)
    }

    /// What the array is in a GPU's memory.
    pub(crate) fn slice(&self) -> &Slice {
        self.shared_slice()
    }

    /// The same, to be held as a clone of the array holds it: whoever writes to the array meanwhile gets a copy.
    pub(crate) fn shared_slice(&self) -> &Arc<Slice> {
        match &self.storage {
            Storage::Cuda(slice, _) => slice,
            Storage::Host(_) => panic!("an array on {:?} is not in a GPU's memory", self.device),
        }
    }

    /// The same, to be written by a kernel; copies the elements first if another clone shares them.
    pub(crate) fn slice_mut(&mut self) -> &Slice {
        if let Storage::Cuda(slice, known) = &mut self.storage {
            *known = None;
            if Arc::get_mut(slice).is_none() {
                self.storage = self.copied().storage;
            }
        }
        let slice = self.slice();
        slice.touch();
        slice
    }
}

impl Tensor {
    /// An array for activations or their gradients, in the precision in which the device keeps them.
    pub fn activation(device: &Device, shape: &[usize]) -> Self {
        Tensor::of_kind(device, shape, device.activation_kind())
    }

    /// Activations `[rows, columns]` for each of `columns`, laid out so that one product can write or read them all
    /// where the device has such a layout.
    pub fn side_by_side(device: &Device, rows: usize, columns: &[usize]) -> Vec<Self> {
        let shapes = columns.iter().map(|&columns| vec![rows, columns]);
        match device.memory() {
            Memory::Cuda(context) if aligned(columns) => {
                let slices = Slice::side_by_side(context, device.activation_kind(), rows, columns);
                Tensor::of_slices(device, shapes, slices)
            }
            _ => shapes.map(|shape| Tensor::activation(device, &shape)).collect(),
        }
    }

    /// Arrays of these shapes that are to outlast activations, one after the other in memory where the device has such a
    /// layout.
    pub fn stacked(device: &Device, shapes: &[Vec<usize>]) -> Vec<Self> {
        let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let shapes = shapes.iter().cloned();
        match device.memory() {
            Memory::Cuda(context) if aligned(&lens) => {
                Tensor::of_slices(device, shapes, Slice::stacked(context, Kind::F32, &lens))
            }
            Memory::Cuda(_) => shapes.map(|shape| Tensor::empty(device, &shape)).collect(),
            Memory::Host(arena) => {
                let lasting = |len| Storage::Host(Arc::new(Buffer::lasting(arena, len)));
                let array = |(shape, len)| Array { device: device.clone(), shape, storage: lasting(len) };
                shapes.zip(lens).map(array).collect()
            }
        }
    }

    pub(crate) fn of_slices(
        device: &Device,
        shapes: impl Iterator<Item = Vec<usize>>,
        slices: Vec<Slice>,
    ) -> Vec<Self> {
        shapes.zip(slices).map(|(shape, slice)| Tensor::of_slice(device, shape, Arc::new(slice))).collect()
    }

    pub(crate) fn of_slice(device: &Device, shape: Vec<usize>, slice: Arc<Slice>) -> Self {
        Array { device: device.clone(), shape, storage: Storage::Cuda(slice, None) }
    }

    /// The first element; the value of a scalar. Waits for the device.
    pub fn item(&self) -> f32 {
        match &self.storage {
            Storage::Host(buffer) => buffer.as_slice().first().copied().unwrap_or(f32::NAN),
            Storage::Cuda(..) => self.to_vec().first().copied().unwrap_or(f32::NAN),
        }
    }
}

/// Whether arrays that share memory still begin where wide loads may.
fn aligned(extents: &[usize]) -> bool {
    extents.len() > 1 && extents.iter().all(|extent| extent.is_multiple_of(8))
}

impl<T: Element> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {:?}", self.shape, self.device)?;
        let Some(data) = self.known() else { return Ok(()) };
        let head = &data[..self.len().min(8)];
        write!(f, ": {head:?}")?;
        if self.len() > head.len() { f.write_str(" …") } else { Ok(()) }
    }
}
