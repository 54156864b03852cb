// Changes to a text before it is split, as the `normalizer` of tokenizer.json says. Each does what the component of the
// tokenizers library of the same name does.
import { ConfigError } from '@q/config';
import { toByteChars } from './bytes.js';
import { patternOf } from './pattern.js';
import { CharacterMap } from './precompiled.js';
import type { TokenizerLimits } from '../limits.js';
import type { Section } from './section.js';

export interface Normalizer {
  normalize(text: string): string;
  /** Has a regular expression that may take long. */
  readonly costly?: boolean;
  /** What it drops from the start of a text still counts as the start, as the library has it for character maps. */
  readonly keepsOrigin?: boolean;
}

/** Lower case of each character by itself: a final sigma stays one, as in Rust. */
export const lowerCase = (text: string): string =>
  text.includes('\u03a3') ? Array.from(text, (char) => char.toLowerCase()).join('') : text.toLowerCase();

const isBertSpace = /[\t\n\r\p{White_Space}]/u;
const bertDropped = /[\0\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;
// The last but one range begins at 2B920 in the library.
const chinese =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

function bertNormalizer(section: Section): Normalizer {
  const cleans = section.boolean('clean_text', true);
  const splitsChinese = section.boolean('handle_chinese_chars', true);
  const lowers = section.boolean('lowercase', true);
  const strips = section.boolean('strip_accents', lowers);
  return {
    normalize(text) {
      let out = text;
      if (cleans) out = out.replace(bertDropped, '').replace(new RegExp(isBertSpace, 'gu'), ' ');
      if (splitsChinese) out = out.replace(chinese, ' $& ');
      if (strips) out = out.normalize('NFD').replace(/\p{Mn}/gu, '');
      return lowers ? lowerCase(out) : out;
    },
  };
}

function replaceNormalizer(section: Section): Normalizer {
  const pattern = patternOf(section);
  const content = section.string('content');
  return { costly: pattern.costly, normalize: (text) => replaceMatches(text, pattern.find(text), content) };
}

/** The text with its matches ([start, end, ...]) replaced. */
export function replaceMatches(text: string, matches: readonly number[], content: string): string {
  if (matches.length === 0) return text;
  let out = '';
  let last = 0;
  for (let i = 0; i < matches.length; i += 2) {
    out += text.slice(last, matches[i]) + content;
    last = matches[i + 1];
  }
  return out + text.slice(last);
}

// eslint-disable-next-line no-control-regex -- control characters are what it drops
const nmtDropped = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/g;
const nmtSpaces = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;

function stripNormalizer(section: Section): Normalizer {
  const left = section.boolean('strip_left', true);
  const right = section.boolean('strip_right', true);
  return {
    normalize(text) {
      const out = left ? text.replace(/^\p{White_Space}+/u, '') : text;
      return right ? withoutEnd(out) : out;
    },
  };
}

/** Without white space at its end; a regular expression would try each run of spaces in the middle too. */
function withoutEnd(text: string): string {
  let end = text.length;
  while (end > 0 && /\p{White_Space}/u.test(text[end - 1])) end--;
  return text.slice(0, end);
}

const unicodeForm = (form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD') => (): Normalizer => ({
  normalize: (text) => text.normalize(form),
});

function sequenceNormalizer(section: Section): Normalizer {
  const steps = section.sections('normalizers').map(normalizerOf);
  return {
    costly: steps.some(({ costly }) => costly),
    keepsOrigin: steps.some(({ keepsOrigin }) => keepsOrigin),
    normalize: (text) => steps.reduce((out, step) => bounded(step.normalize(out), text, section.limits), text),
  };
}

/** @throws ConfigError when a text has grown out of proportion; steps that double it would fill the memory. */
function bounded(out: string, text: string, { growth, growthFrom }: TokenizerLimits): string {
  if (out.length <= growthFrom || out.length <= growth * text.length) return out;
  throw new ConfigError('encode', `the normalizer makes ${out.length} characters of ${text.length}`, {
    fix: 'check where tokenizer.json comes from, or raise growth of tokenizerLimits',
  });
}

const kinds: Readonly<Record<string, (section: Section) => Normalizer>> = {
  BertNormalizer: bertNormalizer,
  ByteLevel: () => ({ normalize: toByteChars }),
  Lowercase: () => ({ normalize: lowerCase }),
  NFC: unicodeForm('NFC'),
  NFD: unicodeForm('NFD'),
  NFKC: unicodeForm('NFKC'),
  NFKD: unicodeForm('NFKD'),
  Nmt: () => ({ normalize: (text) => text.replace(nmtDropped, '').replace(nmtSpaces, ' ') }),
  Precompiled: (section) => {
    const map = CharacterMap.of(section);
    return { keepsOrigin: true, normalize: (text) => map.normalize(text) };
  },
  Prepend: (section) => {
    const prefix = section.string('prepend');
    return { normalize: (text) => (text === '' ? text : prefix + text) };
  },
  Replace: replaceNormalizer,
  Sequence: sequenceNormalizer,
  Strip: stripNormalizer,
  StripAccents: () => ({ normalize: (text) => text.replace(/\p{M}/gu, '') }),
};

/** @throws CheckpointError for settings of the wrong type, UnsupportedError for an unknown kind. */
export function normalizerOf(section: Section): Normalizer {
  const type = section.string('type');
  const make = Object.hasOwn(kinds, type) ? kinds[type] : section.unsupported(Object.keys(kinds));
  const normalizer = make(section);
  return type === 'Replace' || type === 'Sequence'
    ? { ...normalizer, normalize: (text) => bounded(normalizer.normalize(text), text, section.limits) }
    : normalizer;
}
