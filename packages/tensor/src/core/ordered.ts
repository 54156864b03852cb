import type { Driver, DriverInfo } from '../driver/driver.js';

const copiedWrite = 64 << 10;

/**
 * A driver whose queue can be made to wait for something that is not on it, such as bytes from another device. After {@link hold}, what is queued
 * stays here, in order, until those have arrived; what the contract lets return at once still does. Allocating, opening files and recording are not
 * held back, as they have no order among the commands.
 */
export class OrderedDriver implements Driver {
  #steps: (() => void | Promise<void>)[] | undefined;
  #drained: Promise<void> = Promise.resolve();
  #recording = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(private readonly inner: Driver) {}

  get info(): DriverInfo {
    return this.inner.info;
  }

  /** Queues `arrive`, called with what the promise gives; its rejection rejects the next promise of this queue. */
  hold<T>(arriving: Promise<T>, arrive: (value: T) => void): void {
    arriving.catch(() => undefined); // awaited below, perhaps later than it is rejected
    const isFirst = this.#steps === undefined;
    this.#steps ??= [];
    this.#steps.push(async () => arrive(await arriving));
    if (isFirst) this.#drained = this.#drain(this.#steps);
  }

  /** {@link Driver.copyFrom} between two devices that hold nothing back. */
  copyFrom(source: OrderedDriver, sourceBuffer: number, sourceOffset: number, buffer: number, offset: number, bytes: number): boolean {
    if (this.#steps || source.#steps || !this.inner.copyFrom) return false;
    return this.inner.copyFrom(source.inner, sourceBuffer, sourceOffset, buffer, offset, bytes);
  }

  alloc(bytes: number): number {
    return this.inner.alloc(bytes);
  }

  release(buffer: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.release(buffer));
    else this.inner.release(buffer);
  }

  submit(code: number, words: Float64Array): void {
    if (!this.#steps || this.#recording) return this.inner.submit(code, words);
    const copied = words.slice();
    this.#steps.push(() => this.inner.submit(code, copied));
  }

  /** The write, not held back: for {@link hold}'s `arrive`. */
  writeNow(buffer: number, offset: number, data: Uint8Array): void {
    this.inner.write(buffer, offset, data);
  }

  write(buffer: number, offset: number, data: Uint8Array): void {
    if (!this.#steps || this.#recording) return this.inner.write(buffer, offset, data);
    const held = data.byteLength > copiedWrite ? data : data.slice();
    this.#steps.push(() => this.inner.write(buffer, offset, held));
  }

  read(buffer: number, offset: number, bytes: number): Promise<ArrayBuffer> {
    return this.#promised(() => this.inner.read(buffer, offset, bytes));
  }

  openFile(path: string): number {
    return this.inner.openFile(path);
  }

  closeFile(file: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.closeFile(file));
    else this.inner.closeFile(file);
  }

  readFile(file: number, fileOffset: number, buffer: number, offset: number, bytes: number): void {
    const start = () => this.inner.readFile(file, fileOffset, buffer, offset, bytes);
    if (this.#steps && !this.#recording) this.#steps.push(start);
    else start();
  }

  mapFile(file: number, fileOffset: number, bytes: number): number {
    return this.inner.mapFile(file, fileOffset, bytes);
  }

  flush(): Promise<void> {
    return this.#promised(() => this.inner.flush());
  }

  beginCapture(): void {
    this.inner.beginCapture();
    this.#recording = true;
  }

  endCapture(): number {
    this.#recording = false;
    return this.inner.endCapture();
  }

  replay(program: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.replay(program));
    else this.inner.replay(program);
  }

  releaseProgram(program: number): void {
    if (this.#steps) this.#steps.push(() => this.inner.releaseProgram(program));
    else this.inner.releaseProgram(program);
  }

  memory(): { allocatedBytes: number; freeBytes: number } {
    return this.inner.memory();
  }

  async close(): Promise<void> {
    await this.#drained;
    await this.inner.close();
  }

  async #drain(steps: (() => void | Promise<void>)[]): Promise<void> {
    for (let next = 0; next < steps.length; next++) {
      try {
        const waits = steps[next]();
        if (waits) await waits;
      } catch (error) {
        this.#failure ??= { error };
      }
    }
    this.#steps = undefined;
  }

  #promised<T>(start: () => Promise<T>): Promise<T> {
    if (!this.#steps) return this.#failure ? this.#rejected(start) : start();
    return new Promise((resolve, reject) => {
      this.#steps!.push(() => void (this.#failure ? this.#rejected(start) : start()).then(resolve, reject));
    });
  }

  /** Waits as the caller asked to, then rejects with the first failure found here. */
  async #rejected<T>(start: () => Promise<T>): Promise<T> {
    const { error } = this.#failure!;
    this.#failure = undefined;
    await start().catch(() => undefined);
    throw error;
  }
}
