// SentencePiece's compiled character map: a double-array trie from UTF-8 byte sequences to replacements, applied as the
// tokenizers library (spm_precompiled) applies it.
import type { Section } from './section.js';

const ascii = /^[\x20-\x7e]*$/;

export class CharacterMap {
  readonly #units: Uint32Array;
  readonly #replacements: Buffer;
  readonly #known = new Map<string, string | undefined>();
  readonly #changesAscii: boolean;
  readonly #segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' });

  constructor(units: Uint32Array, replacements: Buffer) {
    this.#units = units;
    this.#replacements = replacements;
    const printable = Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(i + 0x20));
    this.#changesAscii = printable.some((char) => this.#replacement(char) !== undefined);
  }

  /** Reads `precompiled_charsmap`: the trie's bytes (u32, little end first), the trie, the replacements. */
  static of(section: Section): CharacterMap {
    const encoded = section.string('precompiled_charsmap');
    const fail = (what: string) => section.fail('precompiled_charsmap', what);
    if (!/^[A-Za-z0-9+/\s]*=*\s*$/.test(encoded)) fail('is not base64');
    return CharacterMap.parse(Buffer.from(encoded, 'base64'), fail);
  }

  static parse(bytes: Buffer, fail: (what: string) => never): CharacterMap {
    if (bytes.length < 4) fail('is shorter than its header');
    const trieBytes = bytes.readUInt32LE(0);
    if (trieBytes % 4 !== 0 || trieBytes < 4 || trieBytes > bytes.length - 4)
      fail(`says that its trie has ${trieBytes} bytes, in ${bytes.length}`);
    const units = new Uint32Array(trieBytes / 4);
    units.forEach((_, i) => (units[i] = bytes.readUInt32LE(4 + 4 * i)));
    return new CharacterMap(units, bytes.subarray(4 + trieBytes));
  }

  /**
   * The text with its clusters replaced. A cluster of fewer than 6 bytes is looked up as a whole; what is not found,
   * and longer clusters, character by character. The first, shortest entry that begins it counts.
   */
  normalize(text: string): string {
    if (!this.#changesAscii && ascii.test(text)) return text;
    let out = '';
    for (const { segment } of this.#segmenter.segment(text)) {
      const whole = this.#lookUp(segment);
      if (whole !== undefined && Buffer.byteLength(segment) < 6) out += whole;
      else for (const char of segment) out += this.#lookUp(char) ?? char;
    }
    return out;
  }

  #lookUp(text: string): string | undefined {
    if (text.length > 5) return undefined;
    if (this.#known.has(text)) return this.#known.get(text);
    const found = this.#replacement(text);
    if (this.#known.size < 4096) this.#known.set(text, found);
    return found;
  }

  #replacement(text: string): string | undefined {
    const units = this.#units;
    const bytes = Buffer.from(text, 'utf8');
    const offset = (unit: number) => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
    let at = offset(units[0]);
    for (const byte of bytes) {
      if (byte === 0) return undefined;
      at ^= byte;
      const unit = units[at];
      if (unit === undefined || (unit & 0x8000_00ff) >>> 0 !== byte) return undefined;
      at ^= offset(unit);
      if ((unit >>> 8) & 1) return this.#textAt((units[at] ?? 0) & 0x7fff_ffff);
    }
    return undefined;
  }

  #textAt(start: number): string {
    const end = this.#replacements.indexOf(0, start);
    return this.#replacements.toString('utf8', start, end < 0 ? undefined : end);
  }
}
