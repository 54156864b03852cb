import type { Driver } from '../driver/driver.js';

const smallest = 256;
const granule = 1 << 20;

/** Size class of a request: powers of two up to 1 MiB, then whole MiB. */
const sizeClass = (bytes: number): number => {
  if (bytes > granule) return Math.ceil(bytes / granule) * granule;
  let size = smallest;
  while (size < bytes) size *= 2;
  return size;
};

/**
 * Temporaries of one device. A buffer that is given back can be handed out again at once, although commands that use it
 * may still be queued: the queue runs in order, so the next user's commands come after them. Nothing is returned to the
 * driver before {@link trim}, so a repeated computation allocates nothing.
 */
export class Pool {
  #free = new Map<number, number[]>();
  #captured: Set<number> | undefined;
  #sizes = new Map<number, number>();
  /** Bytes in free buffers. */
  idleBytes = 0;
  /** Bytes handed out. */
  usedBytes = 0;

  constructor(private readonly driver: Driver) {}

  take(bytes: number): number {
    const size = sizeClass(bytes);
    const buffer = this.#reuse(size) ?? this.#allocate(size);
    this.#captured?.add(buffer);
    this.usedBytes += size;
    return buffer;
  }

  give(buffer: number): void {
    const size = this.#sizes.get(buffer)!;
    this.usedBytes -= size;
    this.#put(buffer, size);
  }

  /** From here to {@link endCapture}, every buffer handed out belongs to the program that is being recorded. */
  beginCapture(): void {
    this.#captured = new Set();
  }

  get capturing(): boolean {
    return this.#captured !== undefined;
  }

  /** Takes the recorded program's buffers out of circulation and returns them; {@link adopt} puts them back. */
  endCapture(): number[] {
    const owned = this.#captured!;
    this.#captured = undefined;
    const idle = new Set([...this.#free.values()].flat().filter((buffer) => owned.has(buffer)));
    for (const [size, buffers] of this.#free) {
      this.#free.set(
        size,
        buffers.filter((buffer) => !idle.has(buffer)),
      );
    }
    for (const buffer of idle) this.idleBytes -= this.#sizes.get(buffer)!;
    return [...idle];
  }

  adopt(buffers: readonly number[]): void {
    for (const buffer of buffers) this.#put(buffer, this.#sizes.get(buffer)!);
  }

  /** Gives all free buffers back to the driver. */
  trim(): void {
    for (const buffers of this.#free.values()) {
      for (const buffer of buffers) {
        this.#sizes.delete(buffer);
        this.driver.release(buffer);
      }
    }
    this.#free.clear();
    this.idleBytes = 0;
  }

  #reuse(size: number): number | undefined {
    const exact = this.#free.get(size)?.pop();
    if (exact !== undefined) {
      this.idleBytes -= size;
      return exact;
    }
    if (size <= granule) return undefined;
    // Large buffers may serve smaller requests, up to a quarter of waste.
    for (const [other, buffers] of this.#free) {
      if (other > size && other <= size * 1.25 && buffers.length > 0) {
        this.idleBytes -= other;
        this.usedBytes += other - size;
        return buffers.pop();
      }
    }
    return undefined;
  }

  #allocate(size: number): number {
    const buffer = this.driver.alloc(size);
    this.#sizes.set(buffer, size);
    return buffer;
  }

  #put(buffer: number, size: number): void {
    const list = this.#free.get(size);
    if (list) list.push(buffer);
    else this.#free.set(size, [buffer]);
    this.idleBytes += size;
  }
}
