import { DisposedError, ShapeError } from '@q/config';
import { dtypeBytes, dtypes, type DType } from '../dtype.js';
import type { TensorRef } from '../driver/schema.js';
import { bf16ToNumber, f16ToNumber } from './half.js';
import type { Backend } from './backend.js';

export type Shape = readonly number[];

export const countOf = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);

/** Bytes on a device, shared by the tensors that view them and given back with the last of these. */
export class Storage {
  #references = 0;

  constructor(
    readonly backend: Backend,
    readonly buffer: number,
    readonly bytes: number,
    private readonly giveBack: (buffer: number) => void,
  ) {}

  get live(): boolean {
    return this.#references > 0;
  }

  retain(): void {
    this.#references += 1;
  }

  release(): void {
    this.#references -= 1;
    if (this.#references === 0) this.giveBack(this.buffer);
  }
}

/** What {@link Tensor.data} gives: 16-bit floats arrive as f32, i64 as BigInt, bool as bytes. */
export type TensorData<D extends DType = DType> = D extends 'f32' | 'f16' | 'bf16'
  ? Float32Array
  : D extends 'i8'
    ? Int8Array
    : D extends 'u8' | 'bool'
      ? Uint8Array
      : D extends 'i32'
        ? Int32Array
        : BigInt64Array;

/**
 * A contiguous row-major array on one device. Creating and combining tensors enqueues work and returns at once; only
 * {@link data} waits. A tensor holds native memory until {@link dispose}, or until the scope it was made in ends.
 */
export class Tensor<D extends DType = DType> implements Disposable {
  #disposed = false;
  readonly count: number;

  constructor(
    readonly storage: Storage,
    /** First byte in the storage. */
    readonly offset: number,
    readonly dtype: D,
    readonly shape: Shape,
  ) {
    this.count = countOf(shape);
    storage.retain();
    storage.backend.track(this);
  }

  get backend(): Backend {
    return this.storage.backend;
  }

  get bytes(): number {
    return this.count * dtypeBytes(this.dtype);
  }

  /** Length of an axis; negative axes count from the end. */
  dim(axis: number): number {
    return this.shape[axis < 0 ? axis + this.shape.length : axis];
  }

  /** Rows when the last axis is taken as the width. */
  get rows(): number {
    return this.dim(-1) === 0 ? 0 : this.count / this.dim(-1);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** For the driver. @throws DisposedError */
  ref(): TensorRef {
    if (this.#disposed) {
      throw new DisposedError('tensor', `a ${this.dtype} [${this.shape}] tensor is used after dispose`, {
        why: 'its scope has ended or dispose() was called',
        fix: 'return it from the scope or keep() it',
      });
    }
    return {
      buffer: this.storage.buffer,
      offset: this.offset,
      dtypeCode: dtypes[this.dtype].code,
      bytes: this.bytes,
      device: this.backend,
    };
  }

  /** The same elements under another shape. @throws ShapeError when the count differs. */
  reshape(shape: Shape): Tensor<D> {
    if (countOf(shape) !== this.count)
      throw new ShapeError('reshape', 'element counts differ', { from: this.shape, to: shape });
    this.ref();
    return new Tensor(this.storage, this.offset, this.dtype, shape);
  }

  /** Rows [start, end) of the first axis, sharing memory. @throws ShapeError when not whole, or out of range. */
  slice(start: number, end: number): Tensor<D> {
    const [length, ...rest] = this.shape;
    if (!(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start <= end && end <= length)) {
      throw new ShapeError('slice', 'range is not within the first axis', { start, end, length });
    }
    this.ref();
    const stride = countOf(rest) * dtypeBytes(this.dtype);
    return new Tensor(this.storage, this.offset + start * stride, this.dtype, [end - start, ...rest]);
  }

  /** Waits for the queue and copies the elements to the host. */
  async data(): Promise<TensorData<D>> {
    const bytes = await this.toBytes();
    return decodeBytes(this.dtype, bytes) as TensorData<D>;
  }

  /** The raw bytes, as safetensors stores them. */
  async toBytes(): Promise<Uint8Array> {
    const { buffer, offset, bytes } = this.ref();
    if (bytes === 0) return new Uint8Array(0);
    return this.backend.read(buffer, offset, bytes);
  }

  /**
   * A copy on a device, which may be this one. Returns at once; commands that use the copy run after it, and this
   * tensor may be disposed right away. See {@link Backend.receive} for how and what it throws.
   * @param options.persistent memory of exactly this size, for weights; default: a temporary
   */
  to(backend: Backend, options: { persistent?: boolean } = {}): Tensor<D> {
    this.ref();
    const copied = options.persistent
      ? backend.allocate(this.shape, this.dtype)
      : backend.empty(this.shape, this.dtype);
    try {
      backend.receive(this, copied);
    } catch (error) {
      copied.dispose();
      throw error;
    }
    return copied;
  }

  /** Takes the tensor out of its scope: the caller disposes it. */
  keep(): this {
    this.backend.untrack(this);
    return this;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.backend.untrack(this);
    this.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const decodeHalf = (bits: Uint16Array, convert: (bits: number) => number): Float32Array =>
  Float32Array.from(bits, convert);

/** Elements from little-endian bytes. */
export function decodeBytes(dtype: DType, raw: Uint8Array): TensorData {
  const aligned = raw.byteOffset % 8 === 0 ? raw : raw.slice();
  const { buffer, byteOffset } = aligned;
  const count = aligned.byteLength / dtypeBytes(dtype);
  switch (dtype) {
    case 'f32':
      return new Float32Array(buffer, byteOffset, count);
    case 'f16':
      return decodeHalf(new Uint16Array(buffer, byteOffset, count), f16ToNumber);
    case 'bf16':
      return decodeHalf(new Uint16Array(buffer, byteOffset, count), bf16ToNumber);
    case 'i8':
      return new Int8Array(buffer, byteOffset, count);
    case 'u8':
    case 'bool':
      return new Uint8Array(buffer, byteOffset, count);
    case 'i32':
      return new Int32Array(buffer, byteOffset, count);
    case 'i64':
      return new BigInt64Array(buffer, byteOffset, count);
  }
}
