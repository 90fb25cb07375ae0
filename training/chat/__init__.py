"""Fine-tuning on conversations: a chat template in bytes, loss on the assistant's turns alone."""

from .dataset import ChatDataset, read_chats
from .encoding import EncodedChat, encode_conversation, encode_row
from .tokenizer import chat_tokenizer_in

__all__ = ["ChatDataset", "EncodedChat", "chat_tokenizer_in", "encode_conversation", "encode_row", "read_chats"]
