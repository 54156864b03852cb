// The alphabet of byte-level vocabularies: one printable character for each byte.

/** Character of each byte. */
export const charOfByte: readonly string[] = (() => {
  const printable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

/** Byte of each character code below 324, or -1. */
const byteOfChar: Int16Array = (() => {
  const bytes = new Int16Array(324).fill(-1);
  charOfByte.forEach((char, byte) => (bytes[char.charCodeAt(0)] = byte));
  return bytes;
})();

/** A text as the characters of its UTF-8 bytes. */
export function toByteChars(text: string): string {
  let chars = '';
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) chars += charOfByte[code];
    else {
      for (const byte of Buffer.from(text.slice(i), 'utf8')) chars += charOfByte[byte];
      return chars;
    }
  }
  return chars;
}

/** The bytes that a token's characters stand for; undefined when one of them stands for none. */
export function fromByteChars(token: string): number[] | undefined {
  const bytes: number[] = [];
  for (let i = 0; i < token.length; i++) {
    const code = token.charCodeAt(i);
    const byte = code < 324 ? byteOfChar[code] : -1;
    if (byte < 0) return undefined;
    bytes.push(byte);
  }
  return bytes;
}
