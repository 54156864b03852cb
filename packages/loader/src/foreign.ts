// What people put where safetensors and JSON are wanted: recognised and named, with what to do.
import { basename } from 'node:path';
import { CheckpointError, UnsupportedError, type QError } from '@q/config';

/** Content that belongs to something else. */
export interface ForeignContent {
  readonly kind: 'lfs' | 'html' | 'message' | 'format' | 'text';
  readonly error: (path: string) => QError;
}

const op = 'checkpoint';
const headBytes = 512;

const damaged = (kind: ForeignContent['kind'], what: string, why: string, fix: string): ForeignContent => ({
  kind,
  error: (file) => new CheckpointError(op, `${basename(file)} is ${what}`, { file, why, fix }),
});
const format = (what: string, fix: string): ForeignContent => ({
  kind: 'format',
  error: (file) => new UnsupportedError(op, `${basename(file)} is ${what}`, { file, fix }),
});

const asPickled = 'give the file its name: .bin';
const fromSource = 'use the checkpoint in safetensors from which it was made';

/** By what the bytes begin with, as latin1: a pattern, or one of several texts. */
const contents: readonly (readonly [RegExp | readonly string[], ForeignContent])[] = [
  [
    /^version https:\/\/git-lfs\.github\.com\/spec\//,
    damaged(
      'lfs',
      'a Git LFS pointer, not the file itself',
      'the folder was cloned without Git LFS',
      'run `git lfs install` and `git lfs pull` in the folder, or download the file',
    ),
  ],
  [
    /^(# xet version |version https:\/\/[\w.-]*xet[\w.-]*\/)/,
    damaged(
      'lfs',
      'a Xet pointer, not the file itself',
      'the folder was cloned without git-xet',
      'run `git xet install` and `git lfs pull` in the folder, or download the file',
    ),
  ],
  [
    /^(\ufeff|\u00ef\u00bb\u00bf)?\s*<(!doctype\s+html|html|head|body|\?xml)\b/i,
    damaged(
      'html',
      'an HTML page',
      'a login or error page was saved in its place',
      'download the file again; on the hub the address of a file has /resolve/, not /blob/',
    ),
  ],
  [
    /^(Entry not found|Access to model |Invalid (username|credentials)|Repository not found|Not Found$|\{"error":)/,
    damaged('message', 'an error message of a server', 'it was saved in its place', 'download the file again'),
  ],
  [['GGUF'], format('a GGUF file (llama.cpp)', fromSource)],
  [['\u0089HDF\r\n'], format('an HDF5 file (TensorFlow)', 'save it from PyTorch')],
  [['PK\u0003\u0004'], format('a zip archive, as PyTorch writes (`pytorch_model.bin`)', asPickled)],
  [
    ['\u0080\u0002', '\u0080\u0003', '\u0080\u0004', '\u0080\u0005'],
    format('a Python pickle (`pytorch_model.bin`)', asPickled),
  ],
  [['\u0093NUMPY'], format('a NumPy array', fromSource)],
  [['\u001f\u008b'], format('a gzip archive', 'unpack it first')],
  [
    ['7z\u00bc\u00af\u0027\u001c', '\u0028\u00b5\u002f\u00fd', '\u00fd7zXZ\u0000', 'BZh9'],
    format('a compressed file', 'unpack it first'),
  ],
];

/** What a file is that should be safetensors or JSON, told by its first bytes; undefined when nothing is known. */
export function foreignContent(bytes: Uint8Array): ForeignContent | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, headBytes)).toString('latin1');
  const begins = (what: RegExp | readonly string[]) =>
    what instanceof RegExp ? what.test(head) : what.some((text) => head.startsWith(text));
  return contents.find(([what]) => begins(what))?.[1];
}

const fromFolder = 'give the folder of the model, or one of its weight files';
const emptyFile = damaged('message', 'empty', 'a download or a copy did not end', 'download the file again');
const jsonFile = damaged('text', 'a JSON file', 'weights are in binary files', fromFolder);
const textFile = damaged('text', 'a text file', 'weights are in binary files', fromFolder);

const unknownFile = damaged('text', 'no safetensors file', 'it does not begin as one', fromFolder);

const isJson = (head: Buffer): boolean => /^(\ufeff)?\s*(\{\s*["}]|\[)/.test(head.toString('utf8'));
/** No control characters but those of lines and tabs; the last character may be cut. */
const isText = (head: Buffer): boolean =>
  /^[^\p{Cc}\ufffd]+\ufffd{0,3}$/u.test(head.toString('utf8').replace(/\s/g, ' '));

/** What a file is that holds no weights, by its first bytes; undefined when nothing is known. */
function otherThanWeights(bytes: Uint8Array): ForeignContent | undefined {
  if (bytes.length === 0) return emptyFile;
  const known = foreignContent(bytes);
  if (known) return known;
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, headBytes));
  if (isJson(head)) return jsonFile;
  return isText(head) ? textFile : undefined;
}

/**
 * What a file is that has no safetensors header, by its first bytes, then by its name; undefined when nothing is known.
 */
export function otherThanSafetensors(bytes: Uint8Array, path: string): ForeignContent | undefined {
  const other = otherThanWeights(bytes);
  if (other) return other;
  // A header of its own, or a name that says so: what is wrong inside is told better elsewhere.
  if (bytes[8] === 0x7b || path.endsWith('.safetensors')) return undefined;
  const named = foreignFiles([basename(path)]);
  if (!named) return unknownFile;
  return format(`not safetensors, and its name is that of ${named.what}`, named.fix);
}

const tarArchive = format(
  'a tar archive, as PyTorch wrote until 2017',
  'load it in Python and save it again: torch.save(torch.load(file), file)',
);
const namedBin = format('safetensors under the name of a PyTorch file', 'give the file its name: .safetensors');
const noPickle = damaged('text', 'no PyTorch file', 'it does not begin as one', 'download the file again');

/** What a file is that should be PyTorch's, by its first bytes. */
export function otherThanPickle(bytes: Uint8Array): ForeignContent {
  if (Buffer.from(bytes.subarray(257, 262)).toString('latin1') === 'ustar') return tarArchive;
  if (bytes[8] === 0x7b) return namedBin;
  return otherThanWeights(bytes) ?? noPickle;
}

const folders: readonly (readonly [RegExp, what: string, fix: string])[] = [
  [
    /^(adapter_model|adapter_config)\b.*\.(safetensors|bin|json)$/,
    'an adapter (LoRA)',
    'load the base model that adapter_config.json names; the file itself opens with baseName "adapter_model"',
  ],
  [/\.gguf$/i, 'GGUF files (llama.cpp)', fromSource],
  [
    /^consolidated.*\.pth$/,
    "Meta's original weights",
    'convert them with transformers/models/llama/convert_llama_weights_to_hf.py, or use the converted repository',
  ],
  [
    /^consolidated.*\.safetensors$/,
    "Mistral's own layout of weights",
    'use the repository that has model.safetensors; other names and another order of rows are inside',
  ],
  [
    /\.(pt|pth|ckpt|bin)$/,
    'PyTorch weights under another name than pytorch_model.bin',
    'open the file itself, or give its name before .bin as baseName',
  ],
  [
    /^(flax_model|model).*\.msgpack(\.index\.json)?$/,
    'Flax weights',
    'save them from PyTorch: from_pretrained(folder, from_flax=True)',
  ],
  [
    /^tf_model.*\.h5(\.index\.json)?$/,
    'TensorFlow weights',
    'save them from PyTorch: from_pretrained(folder, from_tf=True)',
  ],
  [/\.ckpt(-\d+)?\.(index|data-.*|meta)$/, 'a TensorFlow 1 checkpoint', 'convert it in Python first'],
  [/^(weights.*|model)\.npz$/, 'NumPy weights (MLX)', fromSource],
  [/\.onnx(_data)?$/, 'an ONNX graph', fromSource],
  [/\.ot$/, 'weights of rust-bert', fromSource],
];

/** What trainers leave beside the weights. */
const noWeights = /^(training_args\.bin|(optimizer|scheduler|rng_state|scaler|random_states).*\.(pt|pth|bin|pkl))$/;

/** Whether a name is that of something a trainer leaves beside the weights. */
export const isNoWeights = (name: string): boolean => noWeights.test(name);

/** The first known kind of weights among the names of a folder, with the names that are of it. */
export function foreignFiles(names: readonly string[]): { what: string; found: string[]; fix: string } | undefined {
  for (const [pattern, what, fix] of folders) {
    const found = names.filter((name) => pattern.test(name) && !noWeights.test(name));
    if (found.length > 0) return { what, found, fix };
  }
  return undefined;
}
