// The safetensors header: u64 length (little endian), then a JSON object
// { "__metadata__"?: { text: text }, NAME: { dtype, shape, data_offsets: [begin, end] } }, then the tensor data.
// The data must be covered by the tensors exactly: no gap, no overlap, nothing after the last one.
// Source: the format description of the safetensors library and the checks of its reader.
import { CheckpointError, type ErrorDetail } from '@q/config';
import type { DType } from '@q/tensor';
import { storedDType } from './dtypes.js';
import { maxHeaderBytes, maxRank } from '../limits.js';
import type { Strides } from '../strided.js';
import { scanJson } from './json-text.js';

/** A tensor in a file: where its bytes are and what they mean. Row-major, little endian. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Number of elements, the product of `shape` (1 for a scalar, shape `[]`). */
  readonly elements: number;
  /** Path of the file that holds the data. */
  readonly file: string;
  /** First byte of the data, counted from the start of the file. Not necessarily a multiple of the element size. */
  readonly offset: number;
  /** Size of the data in bytes. */
  readonly bytes: number;
  /**
   * In a part of a tensor, and where one is stored transposed: distances in the file, in elements. Default: one element
   * behind the other.
   */
  readonly strides?: Strides;
  /** Which part of the tensor of this name it is, in words. Default: all of it. */
  readonly part?: string;
}

/** A tensor whose element type Q does not compute with (F64, F8_E4M3, I16 ...): listed, but an error when used. */
export interface UnsupportedTensorEntry extends Omit<TensorEntry, 'dtype'> {
  /** The dtype as the file spells it. */
  readonly storedDtype: string;
}

export interface SafetensorsHeader {
  /** Size of the whole file in bytes. */
  readonly bytes: number;
  /** First byte of the tensor data. */
  readonly dataOffset: number;
  /** `__metadata__`, usually `{ format: 'pt' }`; empty if the file has none. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Tensors in the order of their data in the file. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly unsupported: ReadonlyMap<string, UnsupportedTensorEntry>;
}

const op = 'safetensors';
const damaged = 'the file is damaged, cut short, or no safetensors file: fetch it again';
const clip = (name: string) => (name.length > 200 ? `${name.slice(0, 200)}...` : name);
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const loneSurrogate = /\p{Surrogate}/u;

/**
 * Length of the JSON header, from the first 8 bytes of a file.
 * @throws CheckpointError when the file is too short or the length cannot be right.
 */
export function headerLength(bytes: Uint8Array, fileSize: number, file: string): number {
  if (bytes.length < 8 || fileSize < 8) {
    throw new CheckpointError(op, 'the file is too short for a safetensors header', {
      file,
      bytes: fileSize,
      why: 'it starts with 8 bytes of header length',
      fix: damaged,
    });
  }
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  const detail = { file, headerBytes: length.toString(), fileBytes: fileSize, fix: damaged };
  if (length > BigInt(maxHeaderBytes))
    throw new CheckpointError(op, 'the header length is absurd', {
      ...detail,
      why: `the limit is ${maxHeaderBytes} bytes`,
    });
  if (length > BigInt(fileSize - 8))
    throw new CheckpointError(op, 'the header is cut short', { ...detail, why: 'it is longer than the file' });
  if (length < 2n)
    throw new CheckpointError(op, 'the header is empty', { ...detail, why: 'it must hold a JSON object' });
  return Number(length);
}

function parseJson(bytes: Uint8Array, file: string): Record<string, unknown> {
  let json: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(op, 'the header is not valid UTF-8 JSON', {
      file,
      why: (cause as Error).message.slice(0, 200),
      fix: damaged,
      cause,
    });
  }
  if (!isRecord(json) || text[0] !== '{')
    throw new CheckpointError(op, 'the header is not a JSON object', { file, fix: damaged });
  const { duplicate, tooDeep } = scanJson(text);
  if (duplicate !== undefined) {
    throw new CheckpointError(op, 'the header has a key twice', {
      file,
      key: clip(duplicate),
      why: 'readers would disagree about which one counts',
      fix: damaged,
    });
  }
  if (tooDeep) throw new CheckpointError(op, 'the header is nested too deeply', { file, why: tooDeep, fix: damaged });
  return json;
}

/** The texts of `__metadata__`, without a prototype: its keys are a stranger's. */
function parseMetadata(value: unknown, file: string): Record<string, string> {
  const metadata = Object.create(null) as Record<string, string>;
  if (value === undefined) return metadata;
  if (!isRecord(value) || Object.values(value).some((text) => typeof text !== 'string')) {
    throw new CheckpointError(op, '__metadata__ is not an object of texts', { file, fix: damaged });
  }
  return Object.assign(metadata, value as Record<string, string>);
}

interface Parsed {
  entry: TensorEntry | UnsupportedTensorEntry;
  begin: number;
  end: number;
}

/** Product of a shape, or undefined if it is no safe integer. */
function product(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements)) return undefined;
  }
  return elements;
}

type Fail = (what: string, detail?: ErrorDetail) => never;

/** The number of elements, after the checks that need the tensor alone. */
function checkShape(shape: unknown, fail: Fail): { shape: number[]; elements: number } {
  if (!Array.isArray(shape) || !shape.every(isCount))
    return fail('a shape is not a list of sizes', { shape: clip(JSON.stringify(shape) ?? 'missing') });
  if (shape.length > maxRank)
    fail('a shape has too many dimensions', { dimensions: shape.length, why: `the limit is ${maxRank}` });
  const elements = product(shape);
  if (elements === undefined)
    return fail('the number of elements of a tensor overflows', { shape: clip(JSON.stringify(shape)) });
  return { shape, elements };
}

/** Throws unless a tensor of a known element type has the bytes that its shape asks for. */
function checkBytes(
  shape: readonly number[],
  elements: number,
  dtype: string,
  bits: number,
  bytes: number,
  fail: Fail,
) {
  const wanted = elements * bits;
  const shown = { shape: clip(JSON.stringify(shape)), dtype };
  if (!Number.isSafeInteger(wanted)) fail('the size of a tensor overflows', shown);
  if (wanted % 8 !== 0)
    fail('the data of a tensor is misaligned', { ...shown, why: 'its last element does not end with a byte' });
  if (wanted / 8 !== bytes) fail('shape and size of a tensor disagree', { ...shown, bytes, expectedBytes: wanted / 8 });
}

function parseTensor(name: string, value: unknown, dataOffset: number, dataBytes: number, file: string): Parsed {
  const fail: Fail = (what, detail = {}) => {
    throw new CheckpointError(op, what, { file, tensor: clip(name), fix: damaged, ...detail });
  };
  if (loneSurrogate.test(name)) fail('a tensor name is no valid text');
  if (!isRecord(value)) return fail('the description of a tensor is not an object');
  const { dtype, data_offsets: offsets } = value;
  if (typeof dtype !== 'string') return fail('a tensor has no dtype');
  const { shape, elements } = checkShape(value.shape, fail);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    return fail('data_offsets is not [begin, end]', { data_offsets: clip(JSON.stringify(offsets) ?? 'missing') });
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes)
    fail('the data of a tensor lies outside the file', { data_offsets: [begin, end], dataBytes });
  const stored = storedDType(dtype);
  if (stored) checkBytes(shape, elements, dtype, stored.bits, end - begin, fail);
  const place = { name, shape, elements, file, offset: dataOffset + begin, bytes: end - begin };
  const entry = stored?.dtype ? { ...place, dtype: stored.dtype } : { ...place, storedDtype: clip(dtype) };
  return { entry, begin, end };
}

/** Data of all tensors, in order, must tile [0, dataBytes). */
function checkTiling(parsed: readonly Parsed[], dataBytes: number, file: string): void {
  let at = 0;
  for (const { entry, begin, end } of parsed) {
    if (begin !== at) {
      const what =
        begin < at ? 'the data of a tensor overlaps the one before it' : 'there is a gap before the data of a tensor';
      throw new CheckpointError(op, what, {
        file,
        tensor: clip(entry.name),
        data_offsets: [begin, end],
        expectedBegin: at,
        fix: damaged,
      });
    }
    at = end;
  }
  if (at !== dataBytes) {
    throw new CheckpointError(op, 'the tensors do not cover the file', {
      file,
      coveredBytes: at,
      dataBytes,
      why: 'data must end with the last tensor',
      fix: damaged,
    });
  }
}

/**
 * Parses and checks the header of a safetensors file.
 * @param bytes the beginning of the file, at least the 8 bytes of length and the header
 * @param fileSize size of the whole file in bytes
 * @param file path, for entries and errors
 * @throws CheckpointError naming the file, and the tensor where there is one, for anything that the format forbids.
 */
export function parseSafetensorsHeader(bytes: Uint8Array, fileSize: number, file: string): SafetensorsHeader {
  const length = headerLength(bytes, fileSize, file);
  const dataOffset = 8 + length;
  if (bytes.length < dataOffset)
    throw new CheckpointError(op, 'the header is cut short', {
      file,
      headerBytes: length,
      gotBytes: bytes.length - 8,
      fix: damaged,
    });
  const json = parseJson(bytes.subarray(8, dataOffset), file);
  const metadata = parseMetadata(json.__metadata__, file);
  const dataBytes = fileSize - dataOffset;
  const names = Object.keys(json).filter((name) => name !== '__metadata__');
  const parsed = names.map((name) => parseTensor(name, json[name], dataOffset, dataBytes, file));
  parsed.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkTiling(parsed, dataBytes, file);

  const tensors = new Map<string, TensorEntry>();
  const unsupported = new Map<string, UnsupportedTensorEntry>();
  for (const { entry } of parsed) {
    if ('dtype' in entry) tensors.set(entry.name, entry);
    else unsupported.set(entry.name, entry);
  }
  return { bytes: fileSize, dataOffset, metadata, tensors, unsupported };
}
