package store

import (
	"github.com/google/uuid"
	"gorm.io/gorm"

	"herald/pkg/message"
)

// FileRow is a row of message_files: one piece of an attachment. The owner is a single or a bulk.
type FileRow struct {
	OwnerID uuid.UUID
	File    int // index of the attachment
	Piece   int // from 0
	Data    []byte
}

// TableName implements schema.Tabler.
func (FileRow) TableName() string { return "message_files" }

// InsertFileSQL inserts one piece. Its arguments are the fields of FileRow. A piece that exists, because the answer to its insert was
// lost, stays as it is. Pieces are inserted one at a time, so that a connection holds no copy of a whole file.
const InsertFileSQL = "INSERT INTO message_files (owner_id, file, piece, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"

// EachPiece calls insert for every piece of the files of an owner until one fails.
func EachPiece(owner uuid.UUID, files []message.FileData, insert func(r FileRow) error) error {
	for i, data := range files {
		for n, piece := range data {
			if err := insert(FileRow{owner, i, n, piece}); err != nil {
				return err
			}
		}
	}
	return nil
}

// InsertFiles inserts the files of an owner in its transaction.
func InsertFiles(tx *gorm.DB, owner uuid.UUID, files []message.FileData) error {
	return EachPiece(owner, files, func(r FileRow) error {
		return tx.Exec(InsertFileSQL, r.OwnerID, r.File, r.Piece, r.Data).Error
	})
}
