import { dtypeFromCode } from '../dtype.js';
import { bf16FromNumber, bf16ToNumber, f16FromNumber, f16ToNumber } from '../core/half.js';
import type { TensorRef } from '../driver/schema.js';

/** Elements of a tensor as numbers, whatever the dtype; writing rounds to it. */
export interface Cells {
  readonly length: number;
  get(index: number): number;
  set(index: number, value: number): void;
}

/** Host buffers of the reference driver, by id. */
export class ReferenceMemory {
  readonly buffers = new Map<number, ArrayBuffer>();
  #next = 1;
  allocatedBytes = 0;

  alloc(bytes: number): number {
    const id = this.#next++;
    this.buffers.set(id, new ArrayBuffer(bytes));
    this.allocatedBytes += bytes;
    return id;
  }

  release(id: number): void {
    this.allocatedBytes -= this.buffers.get(id)?.byteLength ?? 0;
    this.buffers.delete(id);
  }

  bytes(id: number, offset: number, bytes: number): Uint8Array {
    const buffer = this.buffers.get(id);
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(bytes) && offset >= 0 && bytes >= 0;
    if (!buffer || !whole || offset + bytes > buffer.byteLength) {
      const range = `bytes ${offset} to ${offset + bytes} of buffer ${id}`;
      const what = buffer ? `, which has ${buffer.byteLength}` : ', which does not exist or was released';
      throw Object.assign(new RangeError(range + what), { code: 'command' as const });
    }
    return new Uint8Array(buffer, offset, bytes);
  }

  cells({ buffer, offset, bytes, dtypeCode }: TensorRef): Cells {
    const raw = this.bytes(buffer, offset, bytes);
    const typed = <T extends { [index: number]: number; length: number }>(array: T): Cells => ({
      length: array.length,
      get: (i) => array[i],
      set: (i, value) => void (array[i] = value),
    });
    const half = (to: (bits: number) => number, from: (value: number) => number): Cells => {
      const array = new Uint16Array(raw.buffer, offset, bytes / 2);
      return { length: array.length, get: (i) => to(array[i]), set: (i, value) => void (array[i] = from(value)) };
    };
    switch (dtypeFromCode(dtypeCode)) {
      case 'f32':
        return typed(new Float32Array(raw.buffer, offset, bytes / 4));
      case 'f16':
        return half(f16ToNumber, f16FromNumber);
      case 'bf16':
        return half(bf16ToNumber, bf16FromNumber);
      case 'i8':
        return typed(new Int8Array(raw.buffer, offset, bytes));
      case 'u8':
      case 'bool':
        return typed(raw);
      case 'i32':
        return typed(new Int32Array(raw.buffer, offset, bytes / 4));
      case 'i64': {
        const array = new BigInt64Array(raw.buffer, offset, bytes / 8);
        return {
          length: array.length,
          get: (i) => Number(array[i]),
          set: (i, value) => void (array[i] = BigInt(value)),
        };
      }
    }
  }
}
