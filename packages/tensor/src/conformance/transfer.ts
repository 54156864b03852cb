import { DisposedError, PlacementError, ShapeError, UnsupportedError } from '@q/config';
import { dtypes, type DType } from '../dtype.js';
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import { add, copy, fill } from '../ops/elementwise.js';
import { embedding } from '../ops/rows.js';
import { assertEqual, fail } from './harness.js';

/** Two devices, opened for one case; `from` and `to` may be of the same kind, or two queues of one device. */
export interface Pair {
  readonly from: Backend;
  readonly to: Backend;
}

/** One check of copies from a device to another. Throws when it fails; may close the devices. */
export interface TransferCase {
  readonly name: string;
  run(pair: Pair): Promise<void>;
}

const counting = (count: number, first = 0) => Float32Array.from({ length: count }, (_, i) => first + (i % 4093));
const is = async (tensor: Tensor, expected: ArrayLike<number>, name: string) =>
  assertEqual((await tensor.data()) as Float32Array, expected, name);

async function refuses(type: new (...args: never[]) => Error, what: string, run: () => unknown): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (error instanceof type) return;
    return fail(`${what} gives ${String(error)}, expected a ${type.name}`);
  }
  fail(`${what} is not refused`);
}

const everyDtype: TransferCase[] = (Object.keys(dtypes) as DType[]).map((dtype) => ({
  name: `${dtype}: the same bytes`,
  async run({ from, to }) {
    const x = from.empty([3, 37], dtype);
    from.upload(
      x,
      Uint8Array.from({ length: x.bytes }, (_, i) => (i * 29) % 120),
    );
    const y = x.to(to);
    assertEqual(await y.toBytes(), await x.toBytes(), dtype);
    if (y.backend !== to || y.dtype !== dtype || y.shape.join() !== '3,37') fail('the copy is another tensor');
  },
}));

/** Enough for several pieces, with a tail. */
const large = (9 << 20) / 4 + 3;

const order: TransferCase[] = [
  {
    name: 'comes after the commands before it, on both devices',
    async run({ from, to }) {
      const [x, y] = [from.empty([large], 'f32'), to.empty([large], 'f32')];
      for (let i = 0; i < 8; i++) fill(x, i);
      for (let i = 0; i < 8; i++) fill(y, -i);
      copy(x, y);
      await is(y, new Float32Array(large).fill(7), 'copy');
    },
  },
  {
    name: 'comes before the commands after it, on both devices',
    async run({ from, to }) {
      const values = counting(large);
      const x = from.tensor(values, [large], 'f32');
      const y = x.to(to);
      for (let i = 0; i < 4; i++) fill(x, i);
      const sum = add(y, y);
      to.assign(y.slice(0, 2), [7, 8]);
      await is(
        sum,
        values.map((value) => 2 * value),
        'sum',
      );
      await is(y.slice(0, 4), [7, 8, 2, 3], 'a write after the copy');
      await is(x.slice(0, 2), [3, 3], 'source');
    },
  },
  {
    name: 'holds what it needs when the source is disposed and its memory reused at once',
    async run({ from, to }) {
      const copies: Tensor[] = [];
      for (let i = 0; i < 6; i++) {
        const x = from.tensor(counting(large, i), [large], 'f32');
        copies.push(x.to(to, { persistent: i % 2 === 0 }));
        x.dispose();
        const other = from.empty([large], 'f32');
        fill(other, -1);
        other.dispose();
      }
      for (const [i, tensor] of copies.entries()) await is(tensor, counting(large, i), `copy ${i}`);
    },
  },
  {
    name: 'a copy that is disposed at once leaves its memory to the next tensor',
    async run({ from, to }) {
      const x = from.tensor(counting(large), [large], 'f32');
      x.to(to).dispose();
      const next = to.empty([large], 'f32');
      fill(next, 5);
      await is(next, new Float32Array(large).fill(5), 'next');
    },
  },
  {
    name: 'goes there and back, and on, with commands between',
    async run({ from, to }) {
      const x = from.tensor(counting(1000), [1000], 'f32');
      let value: Tensor = x;
      for (let i = 0; i < 6; i++) {
        value = value.to(i % 2 === 0 ? to : from);
        value = add(value, value);
      }
      await is(
        value,
        counting(1000).map((v) => 64 * v),
        'result',
      );
    },
  },
  {
    name: 'a program recorded while a copy is on its way runs after it',
    async run({ from, to }) {
      const x = from.tensor(counting(large), [large], 'f32');
      const [y, out] = [to.empty([large], 'f32'), to.empty([large], 'f32')];
      copy(x, y);
      using program = to.capture(() => to.submit('add', { a: y.ref(), b: y.ref(), out: out.ref(), count: large }));
      program.replay();
      await is(
        out,
        counting(large).map((v) => 2 * v),
        'result',
      );
    },
  },
];

const shapes: TransferCase[] = [
  {
    name: 'parts of tensors',
    async run({ from, to }) {
      const x = from.tensor(counting(40), [8, 5], 'f32');
      const y = to.tensor(new Float32Array(40), [8, 5], 'f32');
      copy(x.slice(3, 5), y.slice(1, 3));
      await is(
        y,
        counting(40).map((_, i) => (i >= 5 && i < 15 ? i + 10 : 0)),
        'target',
      );
    },
  },
  {
    name: 'nothing, and on the same device',
    async run({ from, to }) {
      if ((await from.empty([0, 4], 'f32').to(to).data()).length !== 0) fail('an empty tensor became longer');
      const x = from.tensor([1, 2, 3], [3], 'f32');
      const y = x.to(from);
      fill(x, 0);
      await is(y, [1, 2, 3], 'copy');
    },
  },
];

const refusals: TransferCase[] = [
  {
    name: 'is refused while a program is recorded, and works after it',
    async run({ from, to }) {
      const x = from.tensor([1, 2], [2], 'f32');
      for (const recording of [from, to]) {
        const y = to.tensor([0, 0], [2], 'f32');
        await refuses(UnsupportedError, 'a copy in a recording', () => recording.capture(() => copy(x, y)));
        copy(x, y);
        await is(y, [1, 2], 'copy');
      }
    },
  },
  {
    name: 'other sizes are refused, and commands on tensors of two devices',
    async run({ from, to }) {
      const [x, y] = [from.tensor([1, 2], [2], 'f32'), to.tensor([3, 4], [2], 'f32')];
      await refuses(ShapeError, 'another size', () => copy(x, y.slice(0, 1)));
      await refuses(PlacementError, 'a sum over two devices', () => add(x, y));
      await is(add(x, x), [2, 4], 'sum');
    },
  },
  {
    name: 'what failed before it is reported once, by one of the two',
    async run({ from, to }) {
      const table = from.tensor(counting(8), [4, 2], 'f32');
      const rows = embedding(table, from.tensor([9], [1], 'i32'), { dtype: 'f32' });
      const y = rows.to(to);
      const failures = [];
      for (const backend of [to, from]) await backend.flush().catch((error: Error) => failures.push(error));
      if (failures.length !== 1) fail(`${failures.length} failures are reported`);
      await Promise.all([from.flush(), to.flush()]);
      copy(table.slice(0, 1).reshape([1, 2]), y);
      await is(y, [0, 1], 'a later copy');
    },
  },
];

const closing: TransferCase[] = [
  {
    name: 'arrives when the source is closed behind it',
    async run({ from, to }) {
      const y = from.tensor(counting(large), [large], 'f32').to(to);
      await from.close();
      await is(y, counting(large), 'copy');
      await refuses(DisposedError, 'a closed source', () => from.empty([1], 'f32'));
    },
  },
  {
    name: 'ends when the target is closed behind it',
    async run({ from, to }) {
      const x = from.tensor(counting(large), [large], 'f32');
      x.to(to);
      await to.close();
      await is(x, counting(large), 'source');
      await refuses(DisposedError, 'a closed target', () => x.to(to));
    },
  },
  {
    name: 'ends when both are closed behind it',
    async run({ from, to }) {
      const x = from.tensor(counting(large), [large], 'f32');
      x.to(to).to(from);
      await Promise.all([to.close(), from.close()]);
      await refuses(DisposedError, 'a closed source', () => x.to(to));
    },
  },
];

/** What copies between any two devices must do. */
export const transferCases: readonly TransferCase[] = [...everyDtype, ...order, ...shapes, ...refusals, ...closing];

/** Runs the cases, each on devices of its own, and reports. */
export async function runTransfers(open: {
  from: () => Backend;
  to: () => Backend;
}): Promise<{ passed: number; failures: { name: string; message: string }[] }> {
  const failures: { name: string; message: string }[] = [];
  let passed = 0;
  for (const { name, run } of transferCases) {
    const pair = { from: open.from(), to: open.to() };
    try {
      await run(pair);
      passed += 1;
    } catch (error) {
      failures.push({ name, message: (error as Error).message });
    }
    await Promise.all([pair.from.close(), pair.to.close()]);
  }
  return { passed, failures };
}
