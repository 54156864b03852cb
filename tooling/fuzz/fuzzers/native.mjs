// Calls of the CPU driver with whatever arguments: sizes, offsets, buffers, dtypes.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cpuAddon } from '../../../packages/kernels-cpu/dist/index.js';
import { fuzzNative, numbers } from '../../../packages/tensor/dist/conformance/index.js';
import { commandCodes, commandNames, commands, encode } from '../../../packages/tensor/dist/index.js';

const sizes = [...Array(14).fill(65_536), 64, 4096];
const hugeNumbers = [
  0,
  -1,
  0.5,
  255,
  65_536,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 33,
  2 ** 40,
  2 ** 53,
  -(2 ** 31),
  1e300,
  Number.NaN,
  Infinity,
];
const failures = ['out_of_memory', 'file', 'command', 'closed', 'device'];

const integer = (random) => {
  if (random.chance(0.03)) return random.pick(hugeNumbers);
  return random.chance(0.5) ? random.int(0, 4) : random.pick([1, 2, 8, 16, 32, 64, 128, 256]);
};
const float = (random) => (random.chance(0.2) ? random.pick(hugeNumbers) : random.next() * 4 - 1);

/** A reference to one of the buffers, mostly to all of one that no other argument has. */
function tensor(random, own) {
  if (random.chance(0.85)) {
    const dtypeCode = random.chance(0.6) ? 0 : random.int(1, 6);
    return { index: own, offset: 0, bytes: sizes[own], dtypeCode };
  }
  const index = random.chance(0.8) ? random.int(0, sizes.length - 1) : random.pick([-1, 99]);
  const whole = sizes[index] ?? 64;
  return {
    index,
    offset: random.chance(0.5) ? 0 : random.pick([4, 64, whole, whole - 4, ...hugeNumbers]),
    bytes: random.chance(0.5) ? whole : random.pick([0, 4, 64, 1024, 2 * whole, ...hugeNumbers]),
    dtypeCode: random.chance(0.8) ? random.int(0, 8) : random.pick([99, -1, 0.5]),
  };
}

function args(random, fields, next = { tensor: 0 }) {
  const valueOf = (type) => {
    if (type === 'int') return integer(random);
    if (type === 'float') return float(random);
    if (type === 'tensor') return tensor(random, next.tensor++ % sizes.length);
    if (type === 'tensor?') return random.chance(0.6) ? undefined : tensor(random, next.tensor++ % sizes.length);
    return Array.from({ length: random.int(1, 2) }, () => args(random, type.repeat, next));
  };
  return Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, valueOf(type)]));
}

/** The buffers' numbers in place of their indices. */
function bound(value, buffers) {
  if (Array.isArray(value)) return value.map((item) => bound(item, buffers));
  if (value === null || typeof value !== 'object') return value;
  if ('index' in value) return { ...value, buffer: buffers[value.index] ?? value.index };
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, bound(item, buffers)]));
}

const calls = {
  alloc: (driver, [bytes]) => driver.release(driver.alloc(bytes)),
  read: (driver, [buffer, offset, bytes]) => driver.read(buffer, offset, Math.min(bytes, 1 << 24)),
  write: (driver, [buffer, offset]) => driver.write(buffer, offset, new Uint8Array(64)),
  release: (driver, [buffer]) => driver.release(buffer + 1000),
  replay: (driver, [program]) => driver.replay(program),
  closeFile: (driver, [file]) => driver.closeFile(file),
  readFile: (driver, [file, at, buffer, offset, bytes]) => driver.readFile(file, at, buffer, offset, bytes),
  mapFile: (driver, [file, at, bytes]) => driver.mapFile(file, at, bytes),
};

export default {
  deadlineMs: 10_000,
  async setup(folder) {
    const driver = cpuAddon().open(0, { threads: 2 });
    const buffers = sizes.map((bytes) => {
      const buffer = driver.alloc(bytes);
      driver.write(
        buffer,
        0,
        new Uint8Array(bytes).map((_, i) => (i * 31) & 63),
      );
      return buffer;
    });
    await driver.flush();
    return { driver, buffers, folder };
  },
  good: () => [{ command: 'fill', args: { out: { index: 0, offset: 0, bytes: 64, dtypeCode: 0 }, value: 1 } }],

  make(random) {
    if (random.chance(0.1)) {
      const call = random.pick(Object.keys(calls));
      return {
        call,
        values: Array.from({ length: 5 }, () => (random.chance(0.5) ? random.int(0, 4096) : random.pick(hugeNumbers))),
      };
    }
    // Arguments that nearly fit, which get further; and any at all.
    if (random.chance(0.7)) return { seed: random.int(0, 2 ** 31 - 1) };
    const command = random.pick(commandNames);
    return { command, args: args(random, commands[command]) };
  },

  async run(input, { driver, buffers, folder }) {
    writeFileSync(
      join(folder, 'call.json'),
      JSON.stringify(input, (_, value) =>
        typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
      ),
    );
    if (input.seed !== undefined) {
      const refusal = await fuzzNative(driver, numbers(input.seed).uniform);
      if (refusal !== undefined) throw Object.assign(new Error(refusal), { code: 'command' });
    } else if (input.call) await calls[input.call](driver, input.values);
    else driver.submit(commandCodes[input.command], encode(input.command, bound(input.args, buffers)));
    await driver.flush();
  },

  expects: (error) => error instanceof Error && failures.includes(error.code),
  close: ({ driver }) => driver.close(),
};
