import { PlacementError } from '@q/config';
import { isTensor } from './marks.js';
import { commandNames, commands, type CommandArgs, type CommandName, type Fields, type TensorRef } from './schema.js';

/** Words of one tensor reference: buffer, byte offset, dtype code, byte length. An absent tensor has buffer 0. */
export const tensorWords = 4;

/** Room for the words beside those of a long list. */
const shortWords = 512;
let scratch = new Float64Array(2 * shortWords);

/** Makes room for `count` more words, and for what follows a list. */
const reserve = (at: number, count: number): void => {
  if (at + count + shortWords <= scratch.length) return;
  const wider = new Float64Array(2 * (at + count + shortWords));
  wider.set(scratch.subarray(0, at));
  scratch = wider;
};

const wordsOf = (fields: Fields): number =>
  Object.values(fields).reduce((sum, type) => sum + (isTensor(type) ? tensorWords : 1), 0);

type Device = TensorRef['device'];

const elsewhere = (command: string, tensor: TensorRef, device: Device): PlacementError =>
  new PlacementError(command, 'a tensor lies on another device', {
    device: device?.name,
    tensor: tensor.device?.name,
    why: 'a command reads the memory of one device',
    fix: 'copy it there with tensor.to(backend)',
  });

let command: CommandName;
let expected: Device;

const writeTensor = (tensor: TensorRef | undefined, at: number): number => {
  if (tensor?.device !== undefined && expected !== undefined && tensor.device !== expected)
    throw elsewhere(command, tensor, expected);
  scratch[at] = tensor?.buffer ?? 0;
  scratch[at + 1] = tensor?.offset ?? 0;
  scratch[at + 2] = tensor?.dtypeCode ?? 0;
  scratch[at + 3] = tensor?.bytes ?? 0;
  return at + tensorWords;
};

const writeFields = (fields: Fields, values: Readonly<Record<string, unknown>>, start: number): number => {
  let at = start;
  for (const name in fields) {
    const type = fields[name];
    if (type === 'int' || type === 'float') scratch[at++] = values[name] as number;
    else if (type === 'tensor' || type === 'tensor?') at = writeTensor(values[name] as TensorRef | undefined, at);
    else {
      const items = values[name] as readonly Readonly<Record<string, unknown>>[];
      reserve(at, items.length * wordsOf(type.repeat));
      scratch[at++] = items.length;
      for (const item of items) at = writeFields(type.repeat, item, at);
    }
  }
  return at;
};

/** Index of each command in the table: its code in the native ABI. */
export const commandCodes = Object.fromEntries(commandNames.map((name, code) => [name, code])) as Record<
  CommandName,
  number
>;

/**
 * The arguments as words for {@link Driver.submit}: a view that the next call overwrites.
 * @param device whose command it is
 * @throws PlacementError when a tensor says that it lies on another device
 */
export const encode = <N extends CommandName>(name: N, args: CommandArgs<N>, device?: Device): Float64Array => {
  command = name;
  expected = device;
  const count = writeFields(commands[name], args as Readonly<Record<string, unknown>>, 0); // may widen scratch
  return scratch.subarray(0, count);
};

const readFields = (fields: Fields, words: Float64Array, cursor: { at: number }): Record<string, unknown> => {
  const values: Record<string, unknown> = {};
  for (const name in fields) {
    const type = fields[name];
    if (type === 'int' || type === 'float') values[name] = words[cursor.at++];
    else if (type === 'tensor' || type === 'tensor?') {
      const [buffer, offset, dtypeCode, bytes] = words.subarray(cursor.at, (cursor.at += tensorWords));
      values[name] = buffer === 0 ? undefined : { buffer, offset, dtypeCode, bytes };
    } else values[name] = Array.from({ length: words[cursor.at++] }, () => readFields(type.repeat, words, cursor));
  }
  return values;
};

/** The inverse of {@link encode}; used by drivers written in TypeScript. */
export const decode = <N extends CommandName>(name: N, words: Float64Array): CommandArgs<N> =>
  readFields(commands[name], words, { at: 0 }) as CommandArgs<N>;
