// Token texts back to a text, as the `decoder` of tokenizer.json says. Each does what the component of the tokenizers
// library of the same name does.
import { fromByteChars } from './bytes.js';
import { joinByteRuns } from './byte-fallback.js';
import { replaceMatches } from './normalizers.js';
import { patternOf } from './pattern.js';
import { prependScheme } from './pre-tokenizers.js';
import type { Section } from './section.js';

export interface Decoder {
  decode(tokens: readonly string[]): readonly string[];
  /** Has a regular expression that may take long. */
  readonly costly?: boolean;
  /** Joins tokens that stand for one byte each. */
  readonly joinsBytes?: boolean;
}

/** What WordPiece's cleanup, and `clean_up_tokenization_spaces` (without the last), take out of a text. */
export const cleanUpSpaces = (text: string): string =>
  text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");

const wordPieceCleanUp = (text: string): string =>
  text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");

function bpeDecoder(section: Section): Decoder {
  const suffix = section.string('suffix', '</w>');
  return {
    decode: (tokens) => tokens.map((token, i) => token.replaceAll(suffix, () => (i === tokens.length - 1 ? '' : ' '))),
  };
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

const byteLevel: Decoder = {
  decode(tokens) {
    const bytes = tokens.map((token) => fromByteChars(token) ?? Buffer.from(token, 'utf8'));
    return [utf8.decode(Buffer.concat(bytes.map((run) => Buffer.from(run))))];
  },
};

function ctc(section: Section): Decoder {
  const pad = section.string('pad_token', '<pad>');
  const delimiter = section.string('word_delimiter_token', '|');
  const cleans = section.boolean('cleanup', true);
  return {
    decode: (tokens) =>
      tokens
        .filter((token, i) => token !== tokens[i - 1])
        .map((token) => token.replaceAll(pad, ''))
        .map((token) => (cleans ? wordPieceCleanUp(token).replaceAll(delimiter, ' ') : token))
        .filter((token) => token !== ''),
  };
}

function metaspace(section: Section): Decoder {
  const mark = section.string('replacement', '\u2581');
  const prefixed = prependScheme(section) !== 'never';
  return {
    decode: (tokens) => tokens.map((token, i) => token.replaceAll(mark, i === 0 && prefixed ? '' : ' ')),
  };
}

function strip(section: Section): Decoder {
  const content = section.string('content');
  const [start, stop] = [section.integer('start'), section.integer('stop')];
  return {
    decode: (tokens) =>
      tokens.map((token) => {
        const chars = [...token];
        let first = 0;
        while (first < start && chars[first] === content) first++;
        let end = chars.length;
        while (chars.length - end < stop && end > first && chars[end - 1] === content) end--;
        return chars.slice(first, end).join('');
      }),
  };
}

function wordPiece(section: Section): Decoder {
  const prefix = section.string('prefix', '##');
  const cleans = section.boolean('cleanup', true);
  const joined = (token: string) => (token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`);
  return {
    decode: (tokens) =>
      tokens.map((token, i) => {
        const out = i === 0 ? token : joined(token);
        return cleans ? wordPieceCleanUp(out) : out;
      }),
  };
}

function replace(section: Section): Decoder {
  const pattern = patternOf(section);
  const content = section.string('content');
  return {
    costly: pattern.costly,
    decode: (tokens) => tokens.map((token) => replaceMatches(token, pattern.find(token), content)),
  };
}

function sequence(section: Section): Decoder {
  const steps = section.sections('decoders').map(decoderOf);
  return {
    costly: steps.some(({ costly }) => costly),
    joinsBytes: steps.some(({ joinsBytes }) => joinsBytes),
    decode: (tokens) => steps.reduce((out, step) => step.decode(out), tokens),
  };
}

const kinds: Readonly<Record<string, (section: Section) => Decoder>> = {
  BPEDecoder: bpeDecoder,
  ByteFallback: () => ({ decode: joinByteRuns, joinsBytes: true }),
  ByteLevel: () => byteLevel,
  CTC: ctc,
  Fuse: () => ({ decode: (tokens) => [tokens.join('')] }),
  Metaspace: metaspace,
  Replace: replace,
  Sequence: sequence,
  Strip: strip,
  WordPiece: wordPiece,
};

/** @throws CheckpointError for settings of the wrong type, UnsupportedError for an unknown kind. */
export function decoderOf(section: Section): Decoder {
  const type = section.string('type');
  return Object.hasOwn(kinds, type) ? kinds[type](section) : section.unsupported(Object.keys(kinds));
}
